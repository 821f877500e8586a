"""Networks of every kind that is probed, clips for them, and an instrument that counts what they run."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import chunked_twin
import pytest
import tiny
import tiny_wan
import torch

from framelens.diffusion.source import Source
from framelens.models import scd
from framelens.models.loading.shuffled import copy_shuffled
from framelens.probes.chunk import chunk_probe
from framelens.probes.chunk.chunk_probe import DRAWS
from framelens.probes.chunk.pasts import Clip
from framelens.probes.experiments import noise_invariance
from framelens.probes.run import probed_clip, world_features
from framelens.probes.run.clips import read_clips
from framelens.probes.run.probed_clip import ProbedClip
from framelens.probes.run.settings import Settings
from framelens.probes.run.shape import RunShape, shape_of_run

FRAMES = 4
ENTERED = "hook_resid_pre"
"""The hook point that a layer calls once whenever it runs."""
TAKES_IN = ("start", "encode", "read", "ask")
"""Methods of a network that take finished frames into memory."""


def dense() -> Any:
    return _on_tiles(tiny.model(layers=3, **tiny.TILES))


def separated(**changes: Any) -> Any:
    sizes = {"height": 20, "width": 20, "encoder_layers": 3, "decoder_layers": 2, "heads": 2, "d_model": 16}
    torch.manual_seed(0)
    network = scd.build(scd.config("tiny", **sizes, conditions=5, rope_axes=(4, 2, 2), **changes))
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    return _on_tiles(network.eval().requires_grad_(False))


def _on_tiles(network: Any) -> Any:
    network.source = Source(metadata={"videos": "tiles"})
    return network


NETWORKS = {
    "dense": dense,
    "chunked": lambda: chunked_twin.model(layers=3),
    "separated, prefix": lambda: separated(fusion="prefix"),
    "separated, asking": lambda: separated(fusion="residual", head=1, query="noise", start_token=False),
}
"""Networks that need no file."""


def settings(**changes: Any) -> Settings:
    plain = {"clips": 1, "context": 2, "steps": 3, "frames": FRAMES, "probed": 2}
    return Settings(**plain | {"statistics": ("block_norms",)} | changes)


def clips_for(model: Any, about: Settings) -> list[Clip]:
    """Two clips of that network's kind."""
    if isinstance(model, chunked_twin.ChunkedTwin):
        size = (chunked_twin.CHANNELS, chunked_twin.SIDE, chunked_twin.SIDE)
        prompts = [tiny.draw(1, *chunked_twin.PROMPT, seed=10 + seed) for seed in (1, 2)]
        videos = [tiny.draw(1, FRAMES, *size, seed=seed) for seed in (1, 2)]
        return [Clip(video, prompt) for video, prompt in zip(videos, prompts, strict=True)]
    if hasattr(model, "bidirectional"):
        return [Clip(tiny_wan.clip(FRAMES, 1, seed), tiny_wan.prompt(1)) for seed in (1, 2)]
    return read_clips(about, model, FRAMES)


def probed(model: Any, about: Settings) -> tuple[ProbedClip, RunShape]:
    """A clip of that network to be measured, and the shape of the run."""
    networks = {"trained": model, "random": copy_shuffled(model, 0)}
    clips = clips_for(model, about)
    return ProbedClip(0, networks, *clips, about, FRAMES), shape_of_run(model, about, FRAMES)


@contextmanager
def few() -> Iterator[None]:
    """Few noise levels and clips, two conditions to a batch: what experiments say must follow."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(noise_invariance, "SIGMAS", (1.0, 0.5))
        patch.setattr(chunk_probe, "ROWS", 2 * DRAWS)
        patch.setattr(probed_clip, "LEVELS", 2)
        patch.setattr(world_features, "CLIPS", 3)
        yield


@contextmanager
def counted(networks: dict[str, Any]) -> Iterator[dict[str, float]]:
    """Layers run, times chunks in the batch: `denoising`, and `encoding` in passes that take frames in."""
    counts, inside = {"denoising": 0.0, "encoding": 0.0}, []
    tokens = networks["trained"].geometry.tokens_per_chunk

    def count(_module: Any, inputs: tuple) -> None:
        rows, seen = inputs[0].shape[:2]
        counts["encoding" if inside else "denoising"] += rows * seen / tokens

    def marked(plain: Any) -> Any:
        def method(*arguments: Any) -> Any:
            inside.append(True)
            try:
                return plain(*arguments)
            finally:
                inside.pop()

        return method

    handles = [
        module.register_forward_pre_hook(count)
        for network in networks.values()
        for name, module in network.hook_dict.items()
        if name.endswith(ENTERED)
    ]
    with pytest.MonkeyPatch.context() as patch:
        for kind in TAKES_IN:
            cls = type(networks["trained"])
            if hasattr(cls, kind):
                patch.setattr(cls, kind, marked(getattr(cls, kind)))
        yield counts
    for handle in handles:
        handle.remove()
