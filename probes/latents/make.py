"""Writes one safetensors file of latents and prompt embeddings, clip by clip; resumes if interrupted.

latents [n f c h w], text [n t w] of each clip's prompt, negative [t w]. Prompts alone: text [prompts t w].
"""

import gc
import hashlib
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from tqdm import tqdm

from framelens.models.encoders.latents import Latents
from framelens.models.encoders.prompts import TextEncoder, find_text_encoder, open_text_encoder, read_prompts
from framelens.models.encoders.vae import open_vae
from framelens.models.loading.checkpoint import write
from framelens.models.loading.devices import check_device
from framelens.models.loading.files import files_of
from framelens.probes.latents.windows import conditions_of, read, windows
from framelens.records import origin, write_json
from framelens.records.identity import Input, describe_differences, framelens_code
from framelens.records.lock import remove_stale_files
from framelens.records.progress import progress_bar
from framelens.videos import Window, latents

IDENTITY = (
    "dtype", "text_encoder", "prompts", "negative", "vae", "videos", "stride", "frames", "size", "clips",
)  # fmt: skip
"""Settings that must agree with those of a finished file; some exist only with videos or with prompts."""
STARTED = (*IDENTITY, "made_by")
"""Those that must agree before a file is resumed."""
PACKAGES = ("torch", "diffusers", "transformers", "safetensors", "av")


@dataclass(frozen=True)
class Request:
    """The settings of one file; `frames` are latent frames, `size` is (height, width) in pixels."""

    videos: Path | None
    prompts: Path | None
    negative: str
    vae: str | None
    text_encoder: str | None
    frames: int
    size: tuple[int, ...]
    stride: int
    clips: int | None
    device: str
    dtype: str


def make(request: Request, out: Path, command: str) -> Path:
    """Writes the file `out`; finished clips are stored beside it, so that a stopped command resumes."""
    check_device(request.device, request.dtype)
    prompts = read_prompts(request.prompts) if request.prompts else []
    settings: dict[str, Any] = {"dtype": request.dtype, "made_by": _made_by()}
    if prompts:
        assert request.text_encoder is not None
        part = find_text_encoder(request.text_encoder)
        settings |= {"text_encoder": part.describe(), "prompts": prompts, "negative": request.negative}
    vae, clips = None, []
    if request.videos:
        vae, clips = _open_vae(request, len(prompts))
        films = [Input.read("film", film) for film in dict.fromkeys(clip.file for clip in clips)]
        files = {film.name: {"bytes": film.bytes, "sha256": film.sha256} for film in films}
        settings |= {"vae": _describe_vae(vae), "videos": files, "stride": request.stride}
        settings |= {"frames": request.frames, "size": list(request.size), "clips": len(clips)}

    if out.exists():
        _require_same(f"{out} was made", _read_metadata(out), settings, IDENTITY)
        return out
    folder = _start_folder(out, settings)
    if vae is not None:
        _encode(request, vae, clips, folder)
        settings["sources"] = [clip.describe() for clip in clips]
    tensors: dict[str, Tensor] = {}
    if vae is not None and vae.temporal == request.stride == 1 and request.videos is not None:
        tensors = conditions_of(request.videos, clips, request.frames)
    vae = None
    gc.collect()
    torch.cuda.empty_cache()  # does nothing without a GPU
    if prompts:
        settings |= _embed(request, prompts, folder)
    write(out, tensors | _join(folder, len(clips), len(prompts)), settings | origin(command, *PACKAGES))
    shutil.rmtree(folder)
    return out


def _open_vae(request: Request, prompts: int) -> tuple[Latents, list[Window]]:
    """The VAE and the clips to encode; ValueError if they do not fit the request."""
    assert request.vae is not None and request.videos is not None
    if request.frames < 1:
        raise ValueError(f"--frames must be at least 1, got {request.frames}")
    if prompts > 1 and request.clips not in (None, prompts):
        raise ValueError(
            f"there are {prompts} prompts for {request.clips} clips; expected the same number, or one prompt"
        )
    vae = open_vae(request.vae, request.device, request.dtype)
    frames = vae.frames_of(request.frames)
    vae.check_pixels(frames, 3, *request.size)
    limit = prompts if prompts > 1 else request.clips
    clips = windows(request.videos, frames, request.stride, limit)
    if 1 < prompts != len(clips):
        raise ValueError(
            f"there are {prompts} prompts, but {len(clips)} clips of {frames} frames in {request.videos}"
        )
    return vae, clips


def _describe_vae(vae: Latents) -> dict[str, Any]:
    """The identity of the VAE, with the SHA-256 of its weights."""
    path = vae.part.path
    sums = []
    for file in [path] if path.is_file() else files_of(path):
        with file.open("rb") as stream:
            sums.append(hashlib.file_digest(stream, "sha256").hexdigest())
    return vae.describe() | {"sha256": sums}


def _read_metadata(out: Path) -> dict[str, Any]:
    try:
        return latents.about(out)
    except (SafetensorError, ValueError):
        return {}


def _made_by() -> dict[str, str]:
    """The versions of what encodes."""
    return {"framelens": framelens_code()} | {name: version(name) for name in PACKAGES}


def _require_same(what: str, found: dict[str, Any], settings: dict[str, Any], keys: tuple[str, ...]) -> None:
    """ValueError, which names the differences, unless both have the same under these keys."""
    was, wanted = ({key: each[key] for key in keys if key in each} for each in (found, settings))
    if was != wanted:
        differences = describe_differences(was, wanted)
        raise ValueError(f"{what} with other settings ({differences}); delete it or choose another --out")


def _start_folder(out: Path, settings: dict[str, Any]) -> Path:
    """The folder of finished clips; ValueError if it was started with other settings."""
    folder = out.with_name(f"{out.name}.partial")
    record = folder / "settings.json"
    if record.exists():
        _require_same(
            f"{folder} was started", json.loads(record.read_text(encoding="utf-8")), settings, STARTED
        )
    write_json(record, settings)
    remove_stale_files(folder)
    remove_stale_files(out.parent, out.name)
    return folder


def _encode(request: Request, vae: Latents, clips: list[Window], folder: Path) -> None:
    """Encodes each missing clip into a separate file."""
    missing = [index for index in range(len(clips)) if not _clip(folder, index).exists()]
    frames, (height, width) = vae.frames_of(request.frames), request.size
    pixels = read([clips[index] for index in missing], frames, (height, width), request.stride)
    done = (len(clips) - len(missing)) * request.frames
    total = len(clips) * request.frames
    with progress_bar(total=total, initial=done, desc="encoding", unit="latent frame") as progress:
        for index, video in zip(missing, pixels, strict=True):
            parts = []
            for part in vae.stream_encode(video):
                parts.append(part.cpu())
                progress.update()
            latent = torch.cat(parts, dim=1)[0]
            if not latent.isfinite().all():
                raise ValueError(
                    f"the latents of clip {index} ({clips[index].file}) are not finite in {request.dtype}; "
                    "try --dtype float32"
                )
            write(_clip(folder, index), {"latents": latent}, {})


def _embed(request: Request, prompts: Sequence[str], folder: Path) -> dict[str, Any]:
    """Embeds each missing prompt, and the negative one, into separate files; gives their metadata."""
    names = [*(f"prompt-{index:05d}" for index in range(len(prompts))), "negative"]
    texts = [*prompts, request.negative]
    assert request.text_encoder is not None
    encoder: TextEncoder = open_text_encoder(request.text_encoder, request.device, request.dtype)
    notes = encoder.notes(prompts, request.negative)
    for note in notes:
        tqdm.write(f"latents: {note}", file=sys.stderr)
    named = list(zip(names, texts, strict=True))
    for name, text in progress_bar(named, desc="embedding", unit="prompt"):
        file = folder / f"{name}.safetensors"
        if not file.exists():
            write(file, {"text": encoder.embed([text])[0]}, {})
    return {"text": encoder.describe(), "notes": notes}


def _join(folder: Path, clips: int, prompts: int) -> dict[str, Tensor]:
    """All tensors of the folder; a single prompt is repeated for each clip."""
    tensors = {}
    if clips:
        tensors["latents"] = torch.stack([load_file(_clip(folder, i))["latents"] for i in range(clips)])
    if prompts:
        text = torch.stack(
            [load_file(folder / f"prompt-{index:05d}.safetensors")["text"] for index in range(prompts)]
        )
        tensors["text"] = text.expand(clips, -1, -1) if prompts == 1 and clips else text
        tensors["negative"] = load_file(folder / "negative.safetensors")["text"]
    return tensors


def _clip(folder: Path, index: int) -> Path:
    return folder / f"clip-{index:05d}.safetensors"
