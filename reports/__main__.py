"""Draws the figures and the page of finished runs.

    framelens figures --run runs/dense-tiles/first
    framelens figures --run all --figure depth --figure lag
    framelens figures --run dense-tiles/first --paper --compare reports/gallery/compare/tiles

Writes <out>/<model>/<run>/<figure>.png, .pdf and .csv, and page.html into the run folder; with --paper the
figures and tables of Bai et al. 2026, numbered as there, into <run>/paper.
"""

import argparse
import sys
from collections.abc import Collection
from pathlib import Path

from framelens.records.commands import exits_as, read_options
from framelens.records.damage import NotReadable, NotShown, name_damage
from framelens.records.runs import run_folders
from framelens.reports import plots
from framelens.reports.datasets import opened_once
from framelens.reports.drawing.publication import FORMATS, Publication, publication
from framelens.reports.drawn import draw_all
from framelens.reports.page.figure import PageFigure
from framelens.reports.page.page import page, write_page
from framelens.reports.page.plain_page import plain_page
from framelens.reports.paper.folder import write_paper
from framelens.reports.runs import PROBE, Run, open_run

FIGURES = Path("reports/figures")
MOST_WORKERS = 64


@exits_as("figures")
def main(arguments: list[str]) -> int:
    """Exit status: 0 when everything was drawn, 2 when the request cannot be met or a file is damaged."""
    options = read_options(parser(), arguments)
    kinds = {PROBE} if options.paper else {kind_of(figure) for figure in options.figure}
    beside = others(options)
    status = 0
    if not 1 <= options.workers <= MOST_WORKERS:
        raise ValueError(f"--workers must be from 1 to {MOST_WORKERS}, got {options.workers}")
    wanted = Publication(options.width, options.title, tuple(dict.fromkeys(options.format)))
    for run in runs(options.run, kinds):
        try:
            with publication(wanted), opened_once():
                if options.paper:
                    print(*write_paper(run, paper_folder(run, options.out), *beside), sep="\n")
                else:
                    draw(run, options.out or FIGURES, options.figure, options.workers)
        except NotReadable as error:
            if options.run != "all":
                raise
            print(f"framelens figures: left out: {error}", file=sys.stderr)
            status = 2
    return status


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="framelens figures", description="figures and page of finished runs"
    )
    parser.add_argument("--run", default="all", help="model/run or the path of a run; default: all")
    parser.add_argument(
        "--out",
        type=Path,
        help=f"folder for the figures (default: {FIGURES}, with --paper paper/ in the run)",
    )
    parser.add_argument(
        "--figure", action="extend", nargs="+", default=[], metavar="NAME",
        help=f"only these figures, and no page: {', '.join(plots.names())}",
    )  # fmt: skip
    parser.add_argument(
        "--workers", type=int, default=1, metavar="N", help="processes that draw the figures (default: 1)"
    )
    form = parser.add_argument_group("for a publication")
    form.add_argument("--width", type=float, metavar="INCHES", help="width of every figure (default: 7.2)")
    form.add_argument(
        "--format", nargs="+", default=[], choices=FORMATS, help="write these formats beside PNG, PDF and CSV"
    )
    form.add_argument(
        "--title", action=argparse.BooleanOptionalAction, default=True,
        help="write title, model and clips above every figure (default: yes)",
    )  # fmt: skip
    paper = parser.add_argument_group("the paper's figures and tables")
    paper.add_argument("--paper", action="store_true", help="draw these instead, numbered as in the paper")
    paper.add_argument(
        "--bench", nargs="+", default=[], metavar="RUN", help="benchmarks, for the speed in Tables 1 and 3"
    )
    paper.add_argument(
        "--compare", nargs="+", default=[], metavar="RUN",
        help="comparisons of trainings, for Figure 5 and the scores in Tables 1 and 2",
    )  # fmt: skip
    return parser


def others(options: argparse.Namespace) -> tuple[list[Run], list[Run]]:
    """Benchmarks and comparisons beside the run; ValueError where they, or --figure, do not fit --paper."""
    if options.paper and options.figure:
        raise ValueError("--paper draws the paper's figures, and --figure others: give one of them")
    if not options.paper and (options.bench or options.compare):
        raise ValueError("--bench and --compare are for --paper: add --paper, or leave them out")
    return [open_run(run) for run in options.bench], [open_run(run) for run in options.compare]


def paper_folder(run: Run, out: Path | None) -> Path:
    """Where the paper's figures of a run are written; ValueError for a run that is not a probe's."""
    if run.kind != PROBE:
        raise ValueError(f"--paper draws a run of `make probe`, and {run.folder} is of kind {run.kind!r}")
    return run.folder / "paper" if out is None else out / run.folder.parent.name / run.name / "paper"


def runs(wanted: str, kinds: Collection[str] = ()) -> list[Run]:
    """The requested run, or every finished run of these kinds (of all kinds where none is named).

    Runs that cannot be opened are named on stderr.
    """
    if wanted != "all":
        return [open_run(wanted)]
    opened = []
    for folder in run_folders():
        try:
            opened.append(open_run(folder))
        except (ValueError, OSError) as error:
            print(f"framelens figures: left out: {error}", file=sys.stderr)
    opened = [run for run in opened if not kinds or run.kind in kinds]
    if not opened:
        raise FileNotFoundError("no finished run in runs/; make one with `make probe` or `make scd-bench`")
    return opened


def kind_of(figure: str) -> str:
    """The kind of run that a figure shows: `kind` in the figure's file, or a probe run."""
    return getattr(plots.load(figure), "kind", PROBE)


def draw(run: Run, out: Path, only: list[str], workers: int = 1) -> None:
    """Draws the figures of one run; writes its page unless only some figures were requested."""
    wanted, drawn, not_drawn = [], [], {}
    own = [name for name in plots.names() if kind_of(name) == run.kind]
    modules = {name: plots.load(name) for name in only or own}
    modules = dict(sorted(modules.items(), key=lambda item: item[1].order))
    for name, module in modules.items():
        missing = run.missing(module.needs)
        if missing and only:
            raise FileNotFoundError(
                f"figure {name} needs {', '.join(missing)}, which {run.folder} did not measure"
            )
        if not missing:
            wanted.append(name)
        elif not getattr(module, "is_for_some", False):
            not_drawn[module.title] = missing
    for name, figure in draw_all(run, wanted, out / run.folder.parent.name / run.name, workers):
        if figure.reason is not None:
            if only:
                raise NotShown(figure.reason)
            not_drawn[modules[name].title] = [figure.reason]
            continue
        print(*figure.files, sep="\n")
        title, caption = modules[name].title, modules[name].caption
        drawn.append(PageFigure(name, title, caption, figure.words, figure.files[0]))
    if not only:
        with name_damage(
            f"what the page shows, in {run.folder}: its datasets, manifest.json or plan.json,", run.remedy
        ):
            path = write_page(run, drawn, not_drawn, page if run.kind == PROBE else plain_page)
        print(path)


if __name__ == "__main__":
    sys.exit(main())
