"""Figures of one run, drawn and saved one after the other, or by several processes.

for name, drawn in draw_all(run, ["depth", "lag"], Path("reports/figures/dense-tiles/first"), workers=2):
    drawn.files                 # PNG, PDF, CSV; none where the figure cannot be shown
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from framelens.records.damage import NotShown, name_damage
from framelens.reports import plots
from framelens.reports.datasets import opened_once
from framelens.reports.drawing import style
from framelens.reports.drawing.publication import Publication, current, publication
from framelens.reports.runs import Run, open_run


@dataclass(frozen=True)
class Drawn:
    """What was drawn of one figure: its files and its numbers in words, or the reason why it is not shown."""

    files: tuple[Path, ...] = ()
    words: str = ""
    reason: str | None = None


def draw_all(run: Run, names: Sequence[str], place: Path, workers: int = 1) -> Iterator[tuple[str, Drawn]]:
    """Each of these figures in this order, saved in the folder `place`.

    This process is one of the workers: it draws the last figures first, until no figure is left to begin.
    NotReadable for a damaged file.
    """
    others = min(workers, len(names)) - 1
    if others < 1:
        yield from ((name, draw_one(run, name, place)) for name in names)
        return
    # Spawned: files that are open here, and the threads of libraries, do not survive a fork.
    pool = ProcessPoolExecutor(others, get_context("spawn"), _open, (run.folder, current()))
    try:
        futures = {name: pool.submit(_draw, name, place) for name in names}
        own = {name: draw_one(run, name, place) for name in reversed(names) if futures[name].cancel()}
        for name, future in futures.items():
            yield name, own[name] if name in own else future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def draw_one(run: Run, name: str, place: Path) -> Drawn:
    """One figure, saved in the folder `place`."""
    module = plots.load(name)
    try:
        with name_damage(f"what figure {name} shows, in {run.files(module.needs)},", run.remedy):
            figure, table = module.draw(run)
            words = module.words(table)
    except NotShown as reason:
        return Drawn(reason=str(reason))
    return Drawn(tuple(style.save(figure, table, place / name, run.manifest.command)), words)


_opened: list[Run] = []
_held = ExitStack()


def _open(folder: Path, wanted: Publication) -> None:
    """Prepares a worker: its run, its own open files, and what the publication asks."""
    _held.enter_context(publication(wanted))
    _held.enter_context(opened_once())
    _opened[:] = [open_run(folder)]


def _draw(name: str, place: Path) -> Drawn:
    return draw_one(_opened[0], name, place)
