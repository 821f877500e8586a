"""framelens compare RUN RUN ...: two or more runs on one page, with overlaid curves and differences.

    framelens compare dense-tiles/default scd-tiles/default
    framelens compare runs/compare/tiles        # one comparison of trainings: its table

The first run is what the others are compared with. A run is named by model/run or by its path.
"""

import argparse
import sys
from pathlib import Path

from framelens.records.commands import exits_as, read_options
from framelens.records.manifest import CompareManifest
from framelens.records.runs import ROOT
from framelens.reports.budget import markdown, table
from framelens.reports.comparison.compared import Compared
from framelens.reports.comparison.page import write
from framelens.reports.runs import open_run


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="framelens compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", nargs="+", metavar="RUN", help="model/run, or the path of a run")
    parser.add_argument("--out", type=Path, help="folder of page and figures (default: in runs/comparisons)")
    return parser


@exits_as("compare")
def main(arguments: list[str]) -> int:
    """Exit status: 0, or 2 where a run is unknown, unfinished or of a kind that is not compared."""
    options = read_options(parser(), arguments)
    runs = [open_run(run) for run in options.run]
    if len(runs) == 1 and isinstance(runs[0].manifest, CompareManifest):
        print(markdown(table(runs[0])))
        return 0
    compared = Compared.of(runs)
    named = "--".join(f"{run.model}-{run.name}" for run in compared.runs)
    print(write(compared, options.out or ROOT / "comparisons" / named[:200]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
