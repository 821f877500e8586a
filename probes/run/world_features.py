"""Features of a world's clips beside those that a run measures: many clips, few passes each.

One pass per frame to remember it, and one per probed frame and noise level, all clips of a batch together.
`clips_of`, `sigmas_of` and `frames_of` give the clips, noise levels and frames.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from framelens import videos
from framelens.diffusion.contract import CausalDiffuser, traits
from framelens.diffusion.own_tokens import own_tokens
from framelens.diffusion.sampler import ForwardPass
from framelens.diffusion.schedule import add_noise
from framelens.hooks.trace import Trace
from framelens.probes.chunk.layers import Layers, select_patterns
from framelens.probes.run.clips import conditions_of, move_conditions, source_of
from framelens.probes.run.finite import require_finite_features
from framelens.probes.run.noise import seed_of
from framelens.probes.run.probed_clip import ProbedClip
from framelens.probes.run.settings import Settings
from framelens.videos import worlds

SIGMAS, CLIPS, FRAMES = (1.0, 0.75, 0.25), 8, 4
QUICK_SIGMAS, QUICK_CLIPS = (1.0, 0.25), 6
TOKENS, CHANNELS = 64, 128
"""Tokens kept of a larger frame, and channels to which wider features are projected at random."""
FIRST_SEED = 500_000
"""Above every seed of the clips that a run measures otherwise."""


def known_world(settings: Settings, model: CausalDiffuser) -> Any:
    """The world that the clips come from, or None where it does not say what it knows of them."""
    source = source_of(settings, model)
    world = worlds.load(source) if source in worlds.names() else None
    return world if hasattr(world, "targets") else None


def clips_of(settings: Settings) -> int:
    """Further clips that are shown for each clip of the run."""
    return QUICK_CLIPS if settings.quick else CLIPS


def sigmas_of(settings: Settings) -> tuple[float, ...]:
    """The noise levels of the passes."""
    return QUICK_SIGMAS if settings.quick else SIGMAS


def frames_of(settings: Settings, frames: int, chunk: int) -> list[int]:
    """At most FRAMES first frames of chunks, spread from the first after the context to the last."""
    even = np.linspace(settings.context // chunk, frames // chunk - 1, FRAMES)
    return sorted({int(index) * chunk for index in even.round()})


def seeds(probed_clip: ProbedClip) -> Iterator[int]:
    """Seeds of the further clips for this probed clip; no other probed clip has the same."""
    clips = clips_of(probed_clip.settings)
    first = (
        videos.VALIDATION_SEED
        + probed_clip.settings.seed * 1_000_000
        + FIRST_SEED
        + probed_clip.index * clips
    )
    yield from range(first, first + clips)


def _points(probed_clip: ProbedClip, model: CausalDiffuser) -> list[str]:
    """The embedding, where there is a point for it, and the residual stream after each layer; in a quick run,
    after every second one."""
    stack = traits(model).denoising_stack
    layers = [f"{name}.hook_resid_post" for name in Layers(model).names]
    embedding = select_patterns(model, [f"{stack}hook_embed"])
    return [*embedding, *(layers[::-2][::-1] if probed_clip.settings.quick else layers)]


@torch.no_grad()
def features(
    probed_clip: ProbedClip, model: CausalDiffuser, batch: videos.Clips, frames: list[int], levels: int
) -> tuple[Float[np.ndarray, "m f s l n d"], list[str]]:
    """The residual stream of a frame's tokens, and the points it was read at.

    NaN after the first `levels` noise levels. The noise is the same for every network.
    """
    video = torch.from_numpy(batch.video).to(probed_clip.clip.video)
    cond = conditions_of(batch, model)
    context = model.start(len(video), move_conditions(cond, video))
    points, kept, sigmas = _points(probed_clip, model), [], sigmas_of(probed_clip.settings)
    seed = seed_of(probed_clip.settings, probed_clip.index, "known_state")
    generator = torch.Generator().manual_seed(seed)
    for frame in range(0, frames[-1] + 1, probed_clip.chunk):
        x = video[:, probed_clip.span(frame)]
        if frame in frames:
            noise = [torch.randn(x.shape, generator=generator).to(x) for _ in sigmas]
            kept.append(
                [
                    _read_tokens(model, points, x, eps, sigma, context, frame)
                    for eps, sigma in zip(noise[:levels], sigmas[:levels], strict=True)
                ]
            )
        if frame < frames[-1]:
            context = model.encode(x, context)
    table = np.stack([np.stack(by_level, 1) for by_level in kept], 1)
    missing = [(0, len(sigmas) - levels) if axis == 2 else (0, 0) for axis in range(table.ndim)]
    return np.pad(table, missing, constant_values=np.nan), points


def _read_tokens(
    model: CausalDiffuser, points: list[str], x: Tensor, noise: Tensor, sigma: float, context: Any, frame: int
) -> Float[np.ndarray, "m l n d"]:
    """The tokens of a chunk's first frame at each point, in one pass at that noise level."""
    kept: dict[str, Tensor] = {}
    chosen = chosen_tokens(model)

    def keep(_read_tokens: Any, name: str, value: Tensor) -> None:
        kept[name] = _project(own_tokens(model, name, value, clips=len(x))[:, chosen].float().cpu())

    with Trace(model.hook_dict, points, keep) as trace:
        trace.on_pass(ForwardPass(frame, 0, sigma, "denoise"))
        level = x.new_full((len(x),), sigma)
        model.denoise(add_noise(x, noise, level[:, None].expand(x.shape[:2])), level, context)
    require_finite_features(model, kept, f"frame {frame}, sigma {sigma:g}")
    return np.stack([_round(kept[point].numpy()) for point in points], 1)


def chosen_tokens(model: CausalDiffuser) -> Tensor:
    """A fixed, evenly spread choice of at most TOKENS tokens of a frame, by their place in it."""
    tokens = model.geometry.tokens_per_frame
    return torch.linspace(0, tokens - 1, min(TOKENS, tokens)).round().long()


def _project(value: Float[Tensor, "m n d"]) -> Float[Tensor, "m n e"]:
    d = value.shape[-1]
    if d <= CHANNELS:
        return value
    directions = torch.randn(d, CHANNELS, generator=torch.Generator().manual_seed(d))
    return value @ directions / CHANNELS**0.5


def _round(value: np.ndarray) -> np.ndarray:
    """Numbers of 10 significant bits, which take half the room on disk."""
    bits = np.ascontiguousarray(value, np.float32).view(np.uint32)
    return ((bits + np.uint32(1 << 13)) & np.uint32(0xFFFFC000)).view(np.float32)
