"""framelens compare RUN RUN ...: two or more runs on one page, or files of scores as a table.

    framelens compare dense-tiles/default scd-tiles/default
    framelens compare runs/compare/tiles        # one comparison of trainings: its table
    framelens compare a.json b.json             # files of `framelens evaluate --out`: their scores as a table
    framelens compare a.json b.json --over-seeds    # means over the training seeds of one recipe
    framelens compare runs/train/a runs/train/b     # curves of trainings, finished or not

The first run is what the others are compared with. A run is named by model/run or by its path. Of trainings
the validation loss is drawn, and the scores that `framelens evaluate --checkpoints runs/train/a` has written.
"""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

from framelens.records.commands import exits_as, read_options
from framelens.records.manifest import CompareManifest
from framelens.records.runs import ROOT
from framelens.records.trainings import LOG, is_training
from framelens.reports.budget import markdown, table
from framelens.reports.comparison import training_page
from framelens.reports.comparison.compared import Compared
from framelens.reports.comparison.page import write
from framelens.reports.comparison.trainings import read_trainings
from framelens.reports.runs import open_run
from framelens.reports.score_table import format_scores


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="framelens compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "run",
        nargs="+",
        metavar="RUN",
        help="model/run, the path of a run or a training, or a .json of scores",
    )
    parser.add_argument(
        "--over-seeds", action=argparse.BooleanOptionalAction, default=False,
        help="of files of scores: all networks are seeds of one recipe; give mean and range over them",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, help="folder of page and figures (default: in runs/comparisons)")
    return parser


@exits_as("compare")
def main(arguments: list[str]) -> int:
    """Exit status: 0, or 2 where a run is unknown, unfinished or of a kind that is not compared."""
    options = read_options(parser(), arguments)
    if all(run.endswith(".json") for run in options.run):
        print(format_scores([Path(run) for run in options.run], options.over_seeds))
        return 0
    if options.over_seeds:
        raise ValueError("--over-seeds is of files of scores, which framelens evaluate --out writes")
    folders = [Path(run) for run in options.run]
    if any(map(is_training, folders)):
        other = next((folder for folder in folders if not is_training(folder)), None)
        if other is not None:
            raise ValueError(f"{other} is not a training (it has no {LOG}): give trainings alone")
        trainings = read_trainings(folders)
        print(training_page.write(trainings, options.out or _choose_folder(each.name for each in trainings)))
        return 0
    runs = [open_run(run) for run in options.run]
    if len(runs) == 1 and isinstance(runs[0].manifest, CompareManifest):
        print(markdown(table(runs[0])))
        return 0
    compared = Compared.of(runs)
    print(write(compared, options.out or _choose_folder(f"{run.model}-{run.name}" for run in compared.runs)))
    return 0


def _choose_folder(names: Iterable[str]) -> Path:
    """The usual folder of a comparison."""
    return ROOT / "comparisons" / "--".join(name.replace("/", "-") for name in names)[:200]


if __name__ == "__main__":
    sys.exit(main())
