"""A model that breaks the contract while it is probed: one line that says where, the traceback in a file.

with in_one_line("my_adapter.py:load", settings):
    session.measure(0)
"""

import shlex
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from framelens import models
from framelens.hooks import SilentHookError
from framelens.models.loading.model_errors import RAISED, error_line, is_of_model
from framelens.probes.run.settings import Settings


@contextmanager
def in_one_line(name: str, settings: Settings) -> Iterator[None]:
    """Raises ValueError for what an adapter's model raised or led to, and for an instrument's refusal.

    Other errors pass through: mistakes of framelens, or messages that say what to do.
    """
    try:
        yield
    except torch.OutOfMemoryError:  # pyright: ignore[reportPrivateImportUsage]
        raise
    except RAISED as error:
        if not _may_come_from_model(error, name):
            raise
        check = f"make check MODEL={shlex.quote(name)}"
        if settings.set:
            pairs = " ".join(f"{option}={value}" for option, value in settings.set)
            check += f" ARGS={shlex.quote(f'--set {pairs}')}"
        raise ValueError(
            f"{name}: {error_line(error)}; run: {check} (traceback: {_save_traceback()})"
        ) from error


def _may_come_from_model(error: BaseException, name: str) -> bool:
    """Whether it may come from the model: an error outside an adapter's lines may still
    follow from what the adapter returned or declared, but a ValueError of framelens says what to do."""
    if isinstance(error, SilentHookError):
        return True
    is_adapter = models.find(name).kind == "adapter"
    return is_adapter and (not isinstance(error, ValueError) or is_of_model(error))


def _save_traceback() -> str:
    """The file with the traceback of the error that is being handled."""
    with tempfile.NamedTemporaryFile("w", prefix="framelens-", suffix=".txt", delete=False) as file:
        file.write(traceback.format_exc())
    return file.name
