"""framelens compare RUN: the comparison of trainings at an equal budget as a table.

framelens compare runs/compare/tiles
"""

import argparse
import sys

from framelens.records.commands import exits_as, read_options
from framelens.records.manifest import CompareManifest
from framelens.records.runs import find_run
from framelens.reports.budget import markdown, table
from framelens.reports.runs import open_run


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="framelens compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", metavar="RUN", help="model/run or path of a comparison of trainings")
    return parser


@exits_as("compare")
def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0, or 2 where a run is unknown or of another kind."""
    options = read_options(parser(), sys.argv[1:] if arguments is None else arguments)
    run = open_run(find_run(options.run))
    run.manifest_as(CompareManifest)
    print(markdown(table(run)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
