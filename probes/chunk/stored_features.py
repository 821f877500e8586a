"""Layers 0 to L replaced by stored features: their whole output (hard) or their summed update (delta).

Rows of a batch are (kind, noise draw). The layers are not run if the model lets them be skipped.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from framelens.probes.chunk.chunk_probe import ChunkProbe
from framelens.probes.chunk.features import DRAWS, Features
from framelens.probes.chunk.layers import Output

KINDS = ("hard", "delta")


def both(x: Tensor) -> Tensor:
    """A row per kind and draw, from a row per draw."""
    return x.repeat(len(KINDS), *[1] * (x.ndim - 1))


def by_kind(rows: Tensor) -> dict[str, Tensor]:
    """The draws of each kind, from the rows of a batch."""
    return dict(zip(KINDS, rows.split(DRAWS), strict=True))


def ends(features: Features, layer: int) -> tuple[Tensor, Tensor]:
    """The residual stream before layer 0 and after `layer`."""
    return features.residual[0], features.residual[layer + 1]


def serve_layers(layer: int, before: Tensor, after: Tensor) -> dict[int, Output]:
    """Replacements for layers 0 to `layer`, from the residual stream at their ends, [(kind draw) n d].

    A hard row continues with `after`; a delta row adds `after - before` to the current embedding.
    """
    is_hard = torch.arange(len(after), device=after.device)[:, None, None] < DRAWS
    update = after - before

    def output(value: Tensor) -> Tensor:
        return torch.where(is_hard, after, value + update)

    return {passed: lambda value: value for passed in range(layer)} | {layer: output}


def velocity(
    probe: ChunkProbe, layer: int, stored: tuple[Tensor, Tensor], x: Tensor, sigma: float, step: int
) -> Tensor:
    """The velocity of every (kind, draw) at `x`, with the two ends of layers 0 to `layer` as stored."""
    with probe.layers.replace_outputs(serve_layers(layer, *stored)) as on_pass:
        return probe.velocity(x, sigma, step, [on_pass], run=len(probe.layers) - layer - 1)


def velocities(probe: ChunkProbe, layer: int, features: Features) -> dict[str, Tensor]:
    """Each kind's velocities at the true frame, noised to each level, [sigma draw f c h w]."""
    before, after = (both(part) for part in ends(features, layer))
    by_level = [
        velocity(probe, layer, (before, after), both(probe.at_level(sigma)), sigma, step)
        for step, sigma in enumerate(probe.levels.tolist())
    ]
    return dict(zip(KINDS, torch.stack(by_level).split(DRAWS, dim=1), strict=True))


def generate(probe: ChunkProbe, layer: int, features: Features, first: int) -> dict[str, Tensor]:
    """Each kind's frames [draw f c h w], from stored features from step `first` of the plain path on."""
    before, after = (both(part) for part in ends(features, layer))

    def at(x: Tensor, step: int) -> Tensor:
        return velocity(probe, layer, (before, after), x, probe.sigma(step), step)

    return by_kind(probe.generate(both(probe.path[first]), at, first))


def generate_refreshed(probe: ChunkProbe, layer: int, every: int) -> dict[str, Tensor]:
    """Each kind's frames when features are computed at steps 0, k, 2k, ... and used until the next."""
    newest: list[Tensor] = []

    def at(x: Tensor, step: int) -> Tensor:
        if step % every == 0:
            whole, features = probe.record(x, probe.sigma(step), step)
            newest[:] = ends(features, layer)
            return whole
        before, after = newest
        return velocity(probe, layer, (before, after), x, probe.sigma(step), step)

    return by_kind(probe.generate(both(probe.noise), at))


def block_share(probe: ChunkProbe, layers: int, runs: Callable[[int], bool]) -> float:
    """The share of a plain sampler's blocks that run, if `layers` layers run only in the steps of `runs`."""
    saved = sum(layers for step in range(probe.steps) if not runs(step))
    return 1 - saved / (probe.steps * len(probe.layers))
