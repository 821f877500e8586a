"""Reads the arrays of a file of latents by name; refuses damaged and oversized files first."""

import pickle
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError

from framelens.records.untrusted import (
    is_archive,
    require_honest_npy,
    require_honest_zip,
    require_kind,
    require_memory_for,
)

READABLE = (".safetensors", ".npy", ".npz", ".pt")
ALONGSIDE = ("text", "actions", "labels", "negative")
DAMAGE = (
    OSError, ValueError, RuntimeError, EOFError, KeyError, TypeError, AttributeError, IndexError,
    AssertionError, pickle.UnpicklingError, SafetensorError, zipfile.BadZipFile, zlib.error, MemoryError,
)  # fmt: skip
"""Errors that readers of these formats raise for damaged files."""
DEPTH = 5
"""Lists may be nested as deep as latents have axes."""


def read_named_arrays(path: Path, wanted: str, expected: str) -> dict[str, Any]:
    """The arrays in a file by name, `wanted` among them."""
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; expected {expected}")
    require_kind(path)
    _require_honest(path)
    try:
        held = _read(path)
    except MemoryError:
        raise ValueError(f"cannot read {path} as latents: it does not fit in memory; split it") from None
    except DAMAGE as error:
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"cannot read {path} as latents: {reason or type(error).__name__}") from None
    if wanted not in held:
        raise ValueError(f"{path} holds {', '.join(held) or 'nothing'}, expected an array called {wanted}")
    return held


def _read(path: Path) -> dict[str, Any]:
    """The arrays in a file by name. ValueError, or one of DAMAGE, for a file that cannot be read."""
    suffix = path.suffix.lower()
    if suffix in (".npy", ".npz"):
        held = np.load(path, allow_pickle=False)
        return _keep_known(path, held if isinstance(held, np.ndarray) else dict(held))
    if suffix == ".safetensors":
        from safetensors.torch import load_file

        return _keep_known(path, load_file(path))
    if suffix == ".pt":
        import torch

        return _keep_known(path, torch.load(path, map_location="cpu", weights_only=True))
    raise ValueError(f"its suffix must be one of {', '.join(READABLE)}")


def _require_honest(path: Path) -> None:
    """Raises ValueError for a file whose headers declare more than it holds, before it is read."""
    suffix = path.suffix.lower()
    if suffix in (".npy", ".npz"):
        require_honest_npy(path)
    elif suffix == ".pt" and is_archive(path):
        require_honest_zip(path, compressed=False)


def _keep_known(path: Path, held: Any) -> dict[str, Any]:
    """The arrays with known names. A single array is taken as latents."""
    held = dict(held) if isinstance(held, Mapping) else {"latents": held}
    if len(held) == 1 and not held.keys() & {"latents", *ALONGSIDE}:
        held = {"latents": next(iter(held.values()))}
    known = {name: values for name, values in held.items() if name == "latents" or name in ALONGSIDE}
    return {name: _to_numpy(path, values) for name, values in known.items()}


def _to_numpy(path: Path, values: Any) -> np.ndarray:
    """The values as a numpy array. Floating-point tensors become float32, as numpy has no bfloat16.

    ValueError for what is not an array, and for an array that declares more than this machine can hold.
    """
    first: Any = values
    count, depth = 1, 0
    while isinstance(first, list | tuple) and first and depth <= DEPTH:
        count, first, depth = count * len(first), first[0], depth + 1
    is_tensor = hasattr(first, "detach")
    size: Callable[[], int] | None = getattr(first, "numel", None)
    if not is_tensor and not isinstance(first, np.ndarray | np.generic | int | float):
        raise ValueError(f"it holds a {type(first).__name__} instead of an array; save tensors or arrays")
    require_memory_for(path, 4 * count * (np.size(first) if size is None else size()))
    if hasattr(values, "detach"):
        values = values.detach()
        values = (values.float() if values.is_floating_point() else values).numpy()
    return np.asarray(values)
