"""Where clips come from: a world, video files, a file of latents, or the model's own samples.

clips = read_clips(settings, model, frames)                          # what is shown from outside
clips = own_clips(settings, model, frames, folder / OWN_FILE)        # what the model itself draws
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from framelens import videos
from framelens.diffusion.contract import CausalDiffuser, traits
from framelens.diffusion.guidance import guided
from framelens.diffusion.sampler import ForwardPass, rollout
from framelens.probes.chunk.chunk_probe import Clip
from framelens.probes.run.finite import require_finite
from framelens.probes.run.noise import noise_like, renoise_seed_of, seed_of
from framelens.probes.run.settings import OWN, Settings
from framelens.probes.run.subject import grid_of, recipe_of
from framelens.videos import latents, worlds

OWN_FILE = "own.safetensors"
OWN_SAMPLE = "own_sample"
"""The name of the noise that a model's own clips start from."""
CHUNKS = 8
"""Chunks of a clip where neither the user nor the model nor a file says how long clips are."""


def source_of(settings: Settings, model: CausalDiffuser) -> str:
    """Where the clips come from: what was asked for, what the model was trained on, or the model itself."""
    return settings.videos or traits(model).source.metadata.get("videos") or OWN


def is_own(settings: Settings, model: CausalDiffuser) -> bool:
    """Whether the clips are samples of the model itself."""
    return source_of(settings, model).split(":")[0] == OWN


def frames_of(settings: Settings, model: CausalDiffuser) -> int:
    """Frames per clip, in whole chunks: as asked for, as in training, as in a file of latents, or 8 chunks.

    ValueError where nothing is left to draw after the context.
    """
    chunk, context = model.geometry.frames_per_chunk, settings.context
    frames = settings.frames or recipe_of(model).get("frames")
    if frames is None and latents.is_file(source_of(settings, model)):
        frames = latents.read(source_of(settings, model)).video.shape[1]
    frames = max(CHUNKS * chunk, context + chunk) if frames is None else frames // chunk * chunk
    if frames <= context:
        at_a_time = f" (the model makes {chunk} at a time)" if chunk > 1 else ""
        raise ValueError(
            f"clips of {frames} frames{at_a_time} leave nothing to draw after --context {context}"
        )
    return frames


def read_clips(settings: Settings, model: CausalDiffuser, frames: int) -> list[Clip]:
    """One clip more than asked for, so that every clip has another one as control.

    Raises ValueError or FileNotFoundError if the source cannot give clips of the model's size.
    """
    source, geometry, wanted = source_of(settings, model), model.geometry, settings.clips + 1
    if latents.is_file(source):
        batch = latents.read(source, frames, wanted)
    elif traits(model).latent:
        if source not in worlds.names() and not Path(source).exists():
            raise FileNotFoundError(f"{source} does not exist; expected a file of latents")
        raise ValueError(
            f"the model takes latents, {source} is video; encode it first "
            f"(python -m framelens.probes.latents) and give the file it "
            f"writes, or --videos {OWN} for samples of the model itself"
        )
    elif source in worlds.names():
        first = videos.VALIDATION_SEED + settings.seed * 1_000_000
        batch = worlds.load(source).clips(range(first, first + wanted), frames)
    else:
        from framelens.videos import files

        batch = files.clips(source, frames, (geometry.height, geometry.width), limit=wanted)
    _check_size(batch.video, source, geometry, settings.clips)
    return _clips(batch, settings, model)


def own_clips(settings: Settings, model: CausalDiffuser, frames: int, file: Path) -> list[Clip]:
    """The model's own samples, as many as `read_clips` gives: from that file, into which each is written as
    it is drawn, so that whoever asks next is given the same.

    They follow the prompts that are named, the first ones again where there are too few, or nothing at all.
    """
    kept = latents.read(file, frames).video if file.exists() else np.empty(0, np.float32)
    drawn, count = list(kept[: settings.clips + 1]), settings.clips + 1
    prompts, texts, negative = _prompts(settings, model)
    texts = texts if texts is None else _repeated(texts, count)
    for index in tqdm(range(len(drawn), count), desc="own samples", unit="clip", leave=False, disable=None):
        text = None if texts is None else texts[index : index + 1]
        drawn.append(own_sample(settings, model, frames, index, text, negative))
        about = {"sampled_by": "the model itself", "prompts": prompts, "seed": settings.seed}
        video = np.stack(drawn)
        text = None if texts is None else texts[: len(video)]
        latents.write(file, video, about=about, text=text, negative=negative)
    return _clips(latents.read(file, frames, count), settings, model)


def check_own(settings: Settings, model: CausalDiffuser, frames: int) -> None:
    """ValueError or OSError where the model cannot draw clips of its own under these prompts and guidance."""
    _, texts, negative = _prompts(settings, model)
    _conditions(settings, model, frames, texts if texts is None else texts[:1], negative)


def _prompts(settings: Settings, model: CausalDiffuser) -> tuple[str, np.ndarray | None, np.ndarray | None]:
    """The file of prompts that own samples follow, "" for none, its embeddings and the negative one."""
    file = source_of(settings, model).removeprefix(OWN).removeprefix(":")
    return (file, *latents.read_prompts(file)) if file else ("", None, None)


def _conditions(
    settings: Settings,
    model: CausalDiffuser,
    frames: int,
    text: np.ndarray | None,
    negative: np.ndarray | None,
) -> tuple[Tensor | None, Tensor | None]:
    """What one own sample is conditioned on, and what guidance leads away from."""
    said = latents.LatentClips(np.empty((1, frames, 0, 0, 0), np.float32), text=text, negative=negative)
    return conditions_of(said, model), negative_of(said, settings, model)


def _repeated(rows: np.ndarray, count: int) -> np.ndarray:
    return rows[np.arange(count) % len(rows)]


def own_sample(
    settings: Settings,
    model: CausalDiffuser,
    frames: int,
    index: int,
    text: np.ndarray | None = None,
    negative: np.ndarray | None = None,
) -> np.ndarray:
    """A free run from noise, [f c h w], by seed, index and text alone; ValueError where it is not finite."""
    g, seed = model.geometry, seed_of(settings, index, OWN_SAMPLE)
    like = torch.empty(
        1, frames, g.channels, g.height, g.width, device=settings.device, dtype=getattr(torch, settings.dtype)
    )
    cond, away = _conditions(settings, model, frames, text, negative)
    cond, grid = placed(cond, like), grid_of(settings)
    sampler = guided(model, settings.guidance, null=away)
    noise, fresh = noise_like(like, seed), renoise_seed_of(settings, index, OWN_SAMPLE)

    def draw(on_pass: Callable[[ForwardPass], None]) -> Tensor:
        return rollout(sampler, noise, grid, cond, on_pass=on_pass, renoise=fresh)

    video = draw(lambda at: None)
    require_finite(model, video, draw)
    video = video[0].float().cpu().numpy()
    return video if traits(model).latent else video.clip(-1, 1)


def conditions_of(batch: videos.Clips, model: CausalDiffuser) -> Tensor | None:
    """The clips' actions [b f], labels [b] or text [b t w], whichever the model takes; its null condition for
    clips without, None for an unconditional model."""
    said = traits(model)
    null, takes = said.null_condition, said.takes
    if takes is None:
        return None
    given = getattr(batch, takes, None)
    if given is not None:
        return torch.from_numpy(given)
    if null is None:
        raise ValueError(
            f"the model takes {takes} and has no condition that says nothing; give clips with {takes}"
        )
    count, frames = batch.video.shape[:2]
    shape = {"actions": (count, frames), "labels": (count,), "text": (count,)}[takes]
    return null.expand(*shape, *null.shape) if isinstance(null, Tensor) else torch.full(shape, null)


def negative_of(batch: videos.Clips, settings: Settings, model: CausalDiffuser) -> Tensor | None:
    """The negative prompt [t w] that guidance leads away from; None for the model's null condition, or where
    nothing is guided.

    Raises ValueError where there is nothing to lead towards or away from. A null prompt of zeros is filling
    alone, which no text encoder gives for any prompt: it does not stand for the empty one.
    """
    if settings.guidance == 1:
        return None
    said, scale = traits(model), settings.guidance
    takes, null = said.takes, said.null_condition
    if takes is None:
        raise ValueError(f"--guidance {scale} needs a model that takes conditions; this one takes none")
    if getattr(batch, takes, None) is None:
        remedy = "make latents --prompts" if takes == "text" else "--videos"
        raise ValueError(f"--guidance {scale} leads towards {takes}, of which the clips have none ({remedy})")
    negative = getattr(batch, "negative", None)
    if takes == "text" and negative is not None:
        return torch.from_numpy(negative)
    if takes == "text" and (not isinstance(null, Tensor) or not null.any()):
        raise ValueError(
            f"--guidance {scale} leads away from a negative prompt, of which the clips have none: make "
            "latents --prompts writes it, the empty one unless --negative says another"
        )
    if null is None:
        raise ValueError(f"--guidance {scale} leads away from a null condition; the model has none")
    return None


def _clips(batch: videos.Clips, settings: Settings, model: CausalDiffuser) -> list[Clip]:
    video = torch.from_numpy(batch.video).to(settings.device, getattr(torch, settings.dtype))
    cond = placed(conditions_of(batch, model), video)
    negative, rows = negative_of(batch, settings, model), range(len(video))
    return [Clip(video[i : i + 1], None if cond is None else cond[i : i + 1], negative) for i in rows]


def placed(cond: Tensor | None, video: Tensor) -> Tensor | None:
    """Conditions beside a video: on its device, and of its dtype unless they are whole numbers."""
    if cond is None or not cond.is_floating_point():
        return None if cond is None else cond.to(video.device)
    return cond.to(video)


def _check_size(video: np.ndarray, source: str, geometry: Any, clips: int) -> None:
    wanted = (geometry.channels, geometry.height, geometry.width)
    if video.shape[2:] != wanted:
        raise ValueError(
            f"clips of {source} are {video.shape[2:]} (channels, height, width), the model takes {wanted}"
        )
    if len(video) < clips + 1:
        raise ValueError(
            f"{source} gives {len(video)} clips; {clips} and one more as control are needed: lower --clips"
        )
