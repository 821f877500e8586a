"""Files of datasets, opened for reading; each once where many readers follow one another.

with opened_once():
    with open_netcdf(path) as stored: ...
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from pathlib import Path

import xarray as xr

from framelens.records import NETCDF_ENGINE

_kept: ContextVar[Callable[[Path], xr.Dataset] | None] = ContextVar("kept", default=None)


def open_netcdf(path: Path) -> AbstractContextManager[xr.Dataset]:
    """The dataset of a file; its values are read when they are used, and it closes at the end."""
    kept = _kept.get()
    return xr.open_dataset(path, engine=NETCDF_ENGINE) if kept is None else nullcontext(kept(path))


@contextmanager
def opened_once() -> Iterator[None]:
    """Within it a file is opened once and stays open: opening takes longer than reading.

    Values are read again each time, so no reader sees what another one does with them.
    """
    if _kept.get() is not None:
        yield
        return
    with ExitStack() as files:
        opened = functools.cache(
            lambda path: files.enter_context(xr.open_dataset(path, engine=NETCDF_ENGINE, cache=False))
        )
        token = _kept.set(opened)
        try:
            yield
        finally:
            _kept.reset(token)
