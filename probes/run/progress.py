"""How far the clips of a run are, also within a clip: which experiment, and how much of the clip is done.

    with ClipProgress(folder.path, index, shares) as progress:       # where the clip is measured
        progress.begin("cut")
    with watch(bar, folder.path, folder.count_clips): ...            # where the bar is shown

Each clip that is being measured has one small file, which other processes read. The file is removed when the
clip ends. Files of killed processes are removed when the run is resumed.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from framelens.records.notes import is_verbose

FORMAT = "{desc}: {percentage:3.0f}%|{bar}| {n:.1f}/{total} clips [{elapsed}<{remaining}{postfix}]"
EVERY = 0.5
"""Seconds between two looks."""


class ClipProgress:
    """The file with how far one clip is; `shares` gives the part of a clip that each experiment takes."""

    def __init__(self, folder: Path, index: int, shares: Mapping[str, float]):
        self.path = folder / f".now-{index:04d}"
        self.shares, self.done, self.current = shares, 0.0, ""

    def begin(self, experiment: str) -> None:
        """The experiments that were begun before are done, and this one is measured now."""
        self.done += self.shares.get(self.current, 0.0)
        self.current = experiment
        try:
            self.path.write_text(f"{self.done:.4f} {experiment}")
        except OSError:
            pass  # what is shown must not end what is measured

    def __enter__(self) -> "ClipProgress":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.path.unlink(missing_ok=True)


def clips_now(folder: Path) -> dict[int, tuple[float, str]]:
    """For each clip that is being measured the share that is done, from 0 to 1, and the experiment."""
    found = {}
    for path in sorted(folder.glob(".now-*")):
        try:
            share, _, experiment = path.read_text().partition(" ")
            found[int(path.name.removeprefix(".now-"))] = min(1.0, float(share)), experiment
        except (OSError, ValueError):
            continue  # it ends, or is being written
    return found


def forget(folder: Path) -> None:
    """Removes what processes left that were killed."""
    for path in folder.glob(".now-*"):
        path.unlink(missing_ok=True)


@contextmanager
def watch(bar: Any, folder: Path, count_clips: Callable[[], int]) -> Iterator[Callable[[], None]]:
    """Moves the bar twice a second, and gives the function that moves it at once.

    With -v a line is printed when an experiment of a clip ends.
    """
    ended, lock, last = threading.Event(), threading.Lock(), {}

    def look() -> None:
        with lock:
            now = clips_now(folder)
            bar.n = min(bar.total, count_clips() + sum(share for share, _ in now.values()))
            bar.set_postfix_str(", ".join(f"clip {i}: {what}" for i, (_, what) in now.items()), refresh=False)
            bar.refresh()
            if is_verbose():
                for index, (_, what) in last.items():
                    if now.get(index, (0, ""))[1] != what:
                        bar.write(f"clip {index}: {what} is measured")
            last.clear()
            last.update(now)

    def again() -> None:
        while not ended.wait(EVERY):
            look()

    thread = threading.Thread(target=again, daemon=True)
    thread.start()
    try:
        yield look
    finally:
        ended.set()
        thread.join()
        look()
