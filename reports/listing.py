"""framelens runs: lists runs; --html and --export write the list as page and CSV, --delete removes runs.

framelens runs
framelens runs dense-tiles/default my-model/first --export runs.csv
framelens runs --delete dense-tiles/old
"""

import argparse
import csv
import io
import shutil
import sys
from datetime import datetime
from pathlib import Path

from framelens.records import write_text
from framelens.records.commands import exits_as, read_options
from framelens.records.lock import hold_folder
from framelens.records.runs import ROOT, KnownRun, describe_run, find_run, known_runs

HEADS = ("run", "kind", "verdict", "settings", "date", "MB")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="framelens runs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "run", nargs="*", metavar="RUN", help="only these: model/run, or a path (default: all)"
    )
    parser.add_argument("--out", type=Path, default=ROOT, help="folder of all runs (default: runs)")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--export", type=Path, metavar="FILE", help="write the list to a CSV file")
    what.add_argument(
        "--html", action="store_true", help="write index.html with every run's verdict and picture"
    )
    what.add_argument("--delete", action="store_true", help="delete the named runs, and ask first")
    parser.add_argument("--yes", action="store_true", help="delete without a question")
    return parser


@exits_as("runs")
def main(arguments: list[str]) -> int:
    """Exit status: 0, or 2 where a run is unknown or the answer to the question is not yes."""
    options = read_options(parser(), arguments)
    named = [find_run(run, options.out) for run in options.run]
    if options.delete:
        return delete([describe_run(folder) for folder in named], options.yes)
    shown = [describe_run(folder) for folder in named] or known_runs(options.out)
    if options.export is not None:
        print(write_text(options.export, as_csv(shown)))
    elif options.html:
        from framelens.reports.page.index import write_index

        print(write_index(shown, options.out))
    elif shown:
        print(table(shown))
    else:
        print(f"there are no runs in {options.out}; make one: framelens probe")
    return 0


def row(run: KnownRun) -> tuple[str, ...]:
    """One run as cells under `HEADS`."""
    verdict = run.verdict or "-" if run.is_complete else "not finished"
    size = f"{run.size / 1e6:.1f}"
    return run.name, run.kind, verdict, run.settings or "default", spell_date(run.created), size


def table(runs: list[KnownRun]) -> str:
    """The runs as a table with aligned columns."""
    rows = [HEADS, *map(row, runs)]
    widths = [max(len(cells[column]) for cells in rows) for column in range(len(HEADS))]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) for cells in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def as_csv(runs: list[KnownRun]) -> str:
    """The runs as CSV, with folder and bytes."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["folder", "model", "run", "kind", "complete", "verdict", "settings", "created", "bytes"])
    for run in runs:
        writer.writerow([
            run.folder, run.model, run.folder.name, run.kind, run.is_complete, run.verdict or "",
            run.settings, run.created, run.size,
        ])  # fmt: skip
    return text.getvalue()


def delete(runs: list[KnownRun], is_confirmed: bool) -> int:
    """Deletes the runs' folders; without confirmation it lists them and asks."""
    if not runs:
        raise ValueError("--delete needs the names of the runs; `framelens runs` lists them")
    print(table(runs))
    if not is_confirmed:
        print(
            f"delete {'this run' if len(runs) == 1 else f'these {len(runs)} runs'}? [y/N] ",
            end="",
            flush=True,
        )
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            print("nothing was deleted")
            return 2
    for run in runs:
        with hold_folder(run.folder, "nothing of it was deleted"):
            shutil.rmtree(run.folder)
    return 0


def spell_date(created: str) -> str:
    """A date and time of day from an ISO time; the text itself where it is none."""
    try:
        return f"{datetime.fromisoformat(created):%Y-%m-%d %H:%M}"
    except ValueError:
        return created


if __name__ == "__main__":
    sys.exit(main())
