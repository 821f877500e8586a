"""Reads and writes files of latents, or of other frames as arrays.

    batch = latents.read("clips.safetensors", frames=24, limit=9)      # LatentClips
    latents.write("clips.safetensors", batch.video, text=batch.text, about={"encoder": "..."})

A .safetensors file holds the tensor `latents` [n f c h w]. It may also hold `text` [n t w] with the
`negative` prompt [t w] that guidance moves away from, `actions` [n f] or [n f a], and `labels` [n]. Files
.npz and .pt hold the same names, or a single array of latents, as .npy does. A file is written whole or not
at all.
"""

import json
import pickle
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError

from framelens.records import replace_file
from framelens.records.untrusted import (
    is_archive,
    require_honest_npy,
    require_honest_zip,
    require_kind,
    require_memory_for,
)
from framelens.videos import Clips

READABLE = (".safetensors", ".npy", ".npz", ".pt")
ALONGSIDE = ("text", "actions", "labels", "negative")
SHAPES = {"text": "[clips, tokens, width]", "actions": "[clips, frames]", "labels": "[clips]"}
"""The shapes of arrays that have one entry per clip; `negative` is one for all clips."""
DAMAGE = (
    OSError, ValueError, RuntimeError, EOFError, KeyError, TypeError, AttributeError, IndexError,
    AssertionError, pickle.UnpicklingError, SafetensorError, zipfile.BadZipFile, zlib.error, MemoryError,
)  # fmt: skip
"""Errors that readers of these formats raise for damaged files."""
DEPTH = 5
"""Lists may be nested as deep as latents have axes."""


@dataclass(frozen=True)
class LatentClips(Clips):
    """Clips, and what a file may hold with them: prompt embeddings, float32 [b t w], or labels, int64 [b].

    `negative` is the prompt that guidance moves away from, one for all clips, float32 [t w].
    """

    text: np.ndarray | None = None
    labels: np.ndarray | None = None
    negative: np.ndarray | None = None


def is_file(source: str) -> bool:
    """Whether the suffix of a source of videos is one of a file of latents."""
    return Path(source).suffix.lower() in READABLE


def read(path: str | Path, frames: int | None = None, limit: int | None = None) -> LatentClips:
    """The first `limit` clips of a file, cut to their first `frames` frames. The default is all.

    Raises FileNotFoundError, or ValueError for a file that is damaged, of another shape or type, not finite,
    or too short.
    """
    path = Path(path)
    held = _read_file(path, "latents", "a file of latents")
    video = _check_array(path, "latents", held["latents"], 5, "[clips, frames, channels, height, width]")
    if frames is not None and video.shape[1] < frames:
        raise ValueError(
            f"{path} has clips of {video.shape[1]} frames, expected at least {frames}: lower --frames"
        )
    negative = _read_negative(path, held)
    beside = {name: _check_alongside(path, name, held[name], video) for name in SHAPES if name in held}
    actions = beside.pop("actions", None)
    actions = actions if actions is None else actions[:limit, :frames]
    beside = {name: values[:limit] for name, values in beside.items()}
    text, labels = beside.get("text"), beside.get("labels")
    return LatentClips(video[:limit, :frames], actions, text=text, labels=labels, negative=negative)


def read_prompts(path: str | Path) -> tuple[np.ndarray, np.ndarray | None]:
    """The embeddings of the prompts [n t w] in a file, and of the negative prompt [t w] or None.

    The file may have no latents. Raises as `read` does.
    """
    path = Path(path)
    held = _read_file(path, "text", "a file of prompts' embeddings")
    return _check_array(path, "text", held["text"], 3, SHAPES["text"]), _read_negative(path, held)


def write(
    path: str | Path, latents: np.ndarray, *, about: Mapping[str, Any] | None = None, **beside: Any
) -> Path:
    """Writes latents [n f c h w], and arrays with the names of ALONGSIDE, as .safetensors.

    `about` is stored as JSON in the metadata of the file, under `framelens`. The file appears when it is
    complete.
    """
    from safetensors.numpy import save_file

    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"cannot write {path}: its suffix must be .safetensors")
    unknown = sorted(beside.keys() - set(ALONGSIDE))
    if unknown:
        raise ValueError(f"latents may come with {', '.join(ALONGSIDE)}, got {', '.join(unknown)}")
    arrays = {"latents": latents} | {name: values for name, values in beside.items() if values is not None}
    contiguous = {name: np.ascontiguousarray(values) for name, values in arrays.items()}

    def fill(partial: Path) -> None:
        save_file(contiguous, partial, metadata={"framelens": json.dumps(dict(about or {}))})
        partial.chmod(0o644)  # safetensors makes files that only their owner can read

    return replace_file(path, fill)


def about(path: str | Path) -> dict[str, Any]:
    """The `about` of a .safetensors file of latents; empty if it has none."""
    from safetensors import safe_open

    if Path(path).suffix != ".safetensors":
        return {}
    with safe_open(path, framework="np") as file:
        return json.loads((file.metadata() or {}).get("framelens", "{}"))


def _read_file(path: Path, wanted: str, expected: str) -> dict[str, Any]:
    """The arrays in a file by name, `wanted` among them."""
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; expected {expected}")
    require_kind(path)
    _require_honest(path)
    try:
        held = _read_arrays(path)
    except MemoryError:
        raise ValueError(f"cannot read {path} as latents: it does not fit in memory; split it") from None
    except DAMAGE as error:
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"cannot read {path} as latents: {reason or type(error).__name__}") from None
    if wanted not in held:
        raise ValueError(f"{path} holds {', '.join(held) or 'nothing'}, expected an array called {wanted}")
    return held


def _read_arrays(path: Path) -> dict[str, Any]:
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
    count, first, depth = 1, values, 0
    while isinstance(first, list | tuple) and first and depth <= DEPTH:
        count, first, depth = count * len(first), first[0], depth + 1
    is_tensor = hasattr(first, "detach")
    if not is_tensor and not isinstance(first, np.ndarray | np.generic | int | float):
        raise ValueError(f"it holds a {type(first).__name__} instead of an array; save tensors or arrays")
    require_memory_for(path, 4 * count * (first.numel() if is_tensor else np.size(first)))
    if hasattr(values, "detach"):
        values = values.detach()
        values = (values.float() if values.is_floating_point() else values).numpy()
    return np.asarray(values)


def _check_array(path: Path, name: str, values: np.ndarray, rank: int, shape: str) -> np.ndarray:
    """The values as float32. ValueError unless they are finite numbers of that rank."""
    if values.dtype.kind != "f":
        raise ValueError(f"{path}: {name} is {values.dtype}, expected floating point")
    if values.ndim != rank or 0 in values.shape:
        raise ValueError(f"{path}: {name} has shape {list(values.shape)}, expected {shape}")
    if not np.isfinite(values).all():
        bad, rows = sorted(set(np.nonzero(~np.isfinite(values))[0].tolist())), shape[1:].split(",")[0]
        raise ValueError(f"{path}: {name} has values that are not finite, in {rows} {bad[:10]}")
    return values.astype(np.float32)


def _read_negative(path: Path, held: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """The negative prompt, or None. ValueError unless it is as long and as wide as the others."""
    if "negative" not in held:
        return None
    negative = _check_array(path, "negative", held["negative"], 2, "[tokens, width]")
    text = held.get("text", negative)
    if text.shape[-2:] != negative.shape:
        raise ValueError(
            f"{path}: negative has shape {list(negative.shape)}, expected {list(text.shape[-2:])}, the "
            "shape of a prompt in text"
        )
    return negative


def _check_alongside(path: Path, name: str, values: np.ndarray, video: np.ndarray) -> np.ndarray:
    """An array that comes with the latents. ValueError unless it fits the clips."""
    clips, frames = video.shape[:2]
    expected = SHAPES[name]
    if name == "text" or (name == "actions" and values.dtype.kind == "f"):
        values = _check_array(path, name, values, 3, expected.replace("frames]", "frames, width]"))
    elif values.dtype.kind not in "iu" or values.ndim != {"actions": 2, "labels": 1}[name]:
        raise ValueError(
            f"{path}: {name} is {values.dtype} {list(values.shape)}, expected integers {expected}"
        )
    else:
        values = values.astype(np.int64)
    if len(values) != clips or (name == "actions" and values.shape[1] != frames):
        raise ValueError(
            f"{path}: {name} has shape {list(values.shape)}, expected {expected} for {clips} clips of "
            f"{frames} frames"
        )
    return values
