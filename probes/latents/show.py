"""Latents as videos: video files, and small previews beside a run's samples.nc."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import xarray as xr
from tqdm import tqdm

from framelens.models.encoders.latents import Latents
from framelens.records import read_netcdf, write_netcdf
from framelens.records.damage import DAMAGE
from framelens.records.progress import progress_bar
from framelens.videos import files, latents

SAMPLES = "samples.nc"
PREVIEW = "samples_preview.nc"
PREVIEWS = ("preview", "truth_preview")
PICTURE = ("pixel_frame", "colour", "pixel_row", "pixel_col")


def decode(
    source: Path,
    vae: Latents,
    out: Path | None = None,
    suffix: str = "mp4",
    rate: float = 16,
    limit: int | None = None,
) -> list[Path]:
    """Writes videos of the first `limit` clips of a file of latents, or of a run's samples and their truth.

    `rate` is in frames per second. The default folder is `videos` beside the source.
    """
    named = _list_clips(source, limit)
    out = out or (source if source.is_dir() else source.parent) / "videos"
    total = sum(len(video) for _, video in named)
    written = []
    with progress_bar(total=total, desc="decoding", unit="latent frame") as progress:
        for name, video in named:
            pixels = torch.cat(list(_stream_pixels(vae, video, progress))).numpy()
            written.append(files.write(out / f"{name}.{suffix}", pixels, frames_per_second=rate))
    return written


def preview(run: Path, vae: Latents, longest: int = 192, command: str = "") -> Path:
    """The run's samples_preview.nc: decoded samples and truth, `preview` and `truth_preview`.

    uint8 (clip, mode, pixel_frame, colour, pixel_row, pixel_col), the truth without mode. Pictures are
    averaged over areas to at most `longest` pixels a side. The coordinate latent_frame (pixel_frame) gives
    the frame of the latents.
    """
    if longest < 1:
        raise ValueError(f"--longest must be at least 1, got {longest}")
    dataset = _read_samples(run)
    video, truth = dataset.video.transpose("clip", "mode", ...).values, dataset.truth.values
    total = truth.shape[0] * truth.shape[1] * (1 + video.shape[1])
    with progress_bar(total=total, desc="decoding", unit="latent frame") as progress:
        generated = [[_shrink(vae, mode, longest, progress) for mode in clip] for clip in video]
        true = [_shrink(vae, clip, longest, progress) for clip in truth]
    frames = truth.shape[1]
    belongs = np.repeat(np.arange(frames), [1] + [vae.temporal] * (frames - 1))
    described = {
        "units": "1",
        "long_name": "pixels, 0 black to 255 white",
        "vae": json.dumps(vae.describe()),
        "pixels": f"{truth.shape[-2] * vae.spatial} x {truth.shape[-1] * vae.spatial} before averaging",
    }
    decoded = xr.Dataset(
        {
            "preview": (("clip", "mode", *PICTURE), np.array(generated), described),
            "truth_preview": (("clip", *PICTURE), np.array(true), described),
        },
        {
            "clip": dataset["clip"],
            "mode": dataset["mode"],
            "latent_frame": ("pixel_frame", dataset.frame.values[belongs]),
        },
        dataset.attrs | {"command": command, "longest": longest},
    )
    for name in PREVIEWS:
        decoded[name].encoding = {"zlib": True, "complevel": 4}
    return write_netcdf(run / PREVIEW, decoded)


def _list_clips(source: Path, limit: int | None) -> list[tuple[str, np.ndarray]]:
    """The clips [f c h w] of a file of latents or of a run, with the name of each one's video file."""
    if limit is not None and limit < 1:
        raise ValueError(f"--clips must be at least 1, got {limit}")
    if not source.is_dir() and source.suffix != ".nc":
        return [(f"{index:04d}", clip) for index, clip in enumerate(latents.read(source, limit=limit).video)]
    dataset = _read_samples(source if source.is_dir() else source.parent, source.name)
    named = []
    for clip in dataset["clip"].values[:limit]:
        one = dataset.sel(clip=clip)
        for mode in dataset["mode"].values:
            named.append((f"{clip:04d}_{mode}", one.video.sel(mode=mode).values))
        named.append((f"{clip:04d}_truth", one.truth.values))
    return named


def _read_samples(run: Path, name: str = SAMPLES) -> xr.Dataset:
    """The run's samples; ValueError or FileNotFoundError unless these are latents."""
    file = run / (name if name.endswith(".nc") else SAMPLES)
    if not file.exists():
        raise FileNotFoundError(f"{run} has no {file.name}; expected the folder of a finished run")
    try:
        dataset = read_netcdf(file)
    except DAMAGE as error:
        raise ValueError(f"cannot read {file}: {error}") from None
    lacking = [name for name in ("video", "truth") if name not in dataset]
    if lacking:
        raise ValueError(f"{file} holds no {', '.join(lacking)}; expected the samples of a probe")
    if not dataset.attrs.get("latent", 1):
        raise ValueError(f"{file} holds pixels already; there is nothing to decode")
    return dataset


def _stream_pixels(vae: Latents, video: np.ndarray, progress: tqdm) -> Iterator[torch.Tensor]:
    """The pixels [f 3 h w] of each latent frame of a clip in turn, on the CPU."""
    for part in vae.stream(torch.from_numpy(video).float()[None]):
        progress.update()
        yield part[0].cpu()


def _shrink(vae: Latents, video: np.ndarray, longest: int, progress: tqdm) -> np.ndarray:
    """The clip as bytes [f 3 h w], with sides of at most `longest` pixels."""
    parts = []
    for part in _stream_pixels(vae, video, progress):
        share = min(1.0, longest / max(part.shape[-2:]))
        size = [max(1, round(side * share)) for side in part.shape[-2:]]
        pixels = F.interpolate(part, size=size, mode="area") if share < 1 else part
        parts.append(((pixels + 1) * 127.5).round().clamp(0, 255).to(torch.uint8))
    return torch.cat(parts).numpy()
