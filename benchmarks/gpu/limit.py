"""A time after which a section is stopped, so that the whole command keeps its minutes."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from framelens.benchmarks.gpu.readings import CannotMeasure


@contextmanager
def stop_after(seconds: float) -> Iterator[None]:
    """Within it, CannotMeasure is raised after that time; not on Windows, nor outside the main thread."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise CannotMeasure(f"no time left: it was stopped after {seconds:.0f} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
