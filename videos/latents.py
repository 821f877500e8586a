"""Reads and writes files of latents, or of other frames as arrays.

    batch = latents.read("clips.safetensors", frames=24, limit=9)      # LatentClips
    latents.write("clips.safetensors", batch.video, text=batch.text, about={"encoder": "..."})

A .safetensors file holds the tensor `latents` [n f c h w]. It may also hold `text` [n t w] with the
`negative` prompt [t w] that guidance moves away from, `actions` [n f] or [n f a], and `labels` [n]. Files
.npz and .pt hold the same names, or a single array of latents, as .npy does. A file is written whole or not
at all.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from framelens.records.notes import print_note
from framelens.records.tensors import write_tensors
from framelens.videos import Clips, Window
from framelens.videos._arrays import ALONGSIDE, READABLE, read_named_arrays
from framelens.videos.choice import choose_clips

SHAPES = {"text": "[clips, tokens, width]", "actions": "[clips, frames]", "labels": "[clips]"}
"""The shapes of arrays that have one entry per clip; `negative` is one for all clips."""


@dataclass(frozen=True)
class LatentClips(Clips):
    """Clips, and the prompt that guidance moves away from, one for all clips, float32 [t w]."""

    negative: np.ndarray | None = None


def is_file(source: str) -> bool:
    """Whether the suffix of a source of videos is one of a file of latents."""
    return Path(source).suffix.lower() in READABLE


def read(path: str | Path, frames: int | None = None, limit: int | None = None) -> LatentClips:
    """The first `limit` clips of a file, cut to their first `frames` frames. The default is all.

    Where the file says of which film each clip is, the `limit` clips are of as many films as there are.
    Raises FileNotFoundError, or ValueError for a file that is damaged, of another shape or type, not finite,
    or too short.
    """
    path = Path(path)
    held = read_named_arrays(path, "latents", "a file of latents")
    video = _check_array(path, "latents", held["latents"], 5, "[clips, frames, channels, height, width]")
    if frames is not None and video.shape[1] < frames:
        raise ValueError(
            f"{path} has clips of {video.shape[1]} frames, expected at least {frames}: lower --frames"
        )
    _note_order(path, video)
    negative = _read_negative(path, held)
    beside = {name: _check_alongside(path, name, held[name], video) for name in SHAPES if name in held}
    windows = _windows_of(path, len(video))
    rows = list(range(len(video)))[:limit]
    if windows and limit is not None:
        rows = choose_clips([window.film for window in windows], limit)
        windows = tuple(windows[row] for row in rows)
    actions = beside.pop("actions", None)
    actions = actions if actions is None else actions[rows, :frames]
    beside = {name: values[rows] for name, values in beside.items()}
    text, labels = beside.get("text"), beside.get("labels")
    return LatentClips(
        video[rows, :frames], actions, windows=windows, text=text, labels=labels, negative=negative
    )


def read_frames(path: Path) -> np.ndarray:
    """The latents [f c h w] of a single clip, float32; raises as `read` does."""
    held = read_named_arrays(path, "latents", "a file of latents")
    return _check_array(path, "latents", held["latents"], 4, "[frames, channels, height, width]")


def read_prompts(path: str | Path) -> tuple[np.ndarray, np.ndarray | None]:
    """The embeddings of the prompts [n t w] in a file, and of the negative prompt [t w] or None.

    The file may have no latents. Raises as `read` does.
    """
    path = Path(path)
    held = read_named_arrays(path, "text", "a file of prompts' embeddings")
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
    return write_tensors(path, save_file, contiguous, about or {})


def about(path: str | Path) -> dict[str, Any]:
    """The `about` of a .safetensors file of latents; empty if it has none."""
    from safetensors import safe_open

    if Path(path).suffix != ".safetensors":
        return {}
    with safe_open(path, framework="np") as file:
        return json.loads((file.metadata() or {}).get("framelens", "{}"))


def _windows_of(path: Path, clips: int) -> tuple[Window, ...]:
    """Where each clip is in a film, as `make latents` writes it under `sources`; empty where it does not."""
    sources = about(path).get("sources")
    if not isinstance(sources, list) or len(sources) != clips:
        return ()
    try:
        return tuple(Window.of(source) for source in sources)
    except (KeyError, TypeError, ValueError):
        return ()


def _check_array(path: Path, name: str, values: np.ndarray, rank: int, shape: str) -> np.ndarray:
    """The values as float32. ValueError unless they are finite numbers of that rank."""
    if values.dtype.kind != "f":
        raise ValueError(f"{path}: {name} is {values.dtype}, expected floating point")
    if values.ndim != rank or 0 in values.shape:
        raise ValueError(f"{path}: {name} has shape {list(values.shape)}, expected {shape}")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused
        values = values.astype(np.float32)
    if not np.isfinite(values).all():
        bad, rows = sorted(set(np.nonzero(~np.isfinite(values))[0].tolist())), shape[1:].split(",")[0]
        raise ValueError(f"{path}: {name} has values that are not finite in float32, in {rows} {bad[:10]}")
    return values


def _note_order(path: Path, video: np.ndarray) -> None:
    """Prints a note if frames and channels are equally many, in a file that another program wrote."""
    frames, channels = video.shape[1:3]
    if frames == channels > 1 and not about(path):
        print_note(
            f"{path} has {frames} frames and {channels} channels, so the order of its axes cannot be "
            "checked: expected is [clips, frames, channels, height, width]; diffusers stores channels first"
        )


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
