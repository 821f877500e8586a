"""Layers 0 to L served from storage: their whole output (hard), or their summed update (delta).

Rows of a batch are (kind, noise draw). The layers are not run where the model lets them be passed over.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from framelens.probes.chunk.layers import Output
from framelens.probes.chunk.stage import DRAWS, Features, Stage

KINDS = ("hard", "delta")


def both(x: Tensor) -> Tensor:
    """A row per kind and draw, from a row per draw."""
    return x.repeat(len(KINDS), *[1] * (x.ndim - 1))


def by_kind(rows: Tensor) -> dict[str, Tensor]:
    """The draws of each kind, from the rows of a batch."""
    return dict(zip(KINDS, rows.split(DRAWS), strict=True))


def ends(features: Features, layer: int) -> tuple[Tensor, Tensor]:
    """The residual stream before layer 0 and behind `layer`."""
    return features.residual[0], features.residual[layer + 1]


def served(layer: int, before: Tensor, after: Tensor) -> dict[int, Output]:
    """Replacements for layers 0 to `layer`, from the residual stream at their ends, [(kind draw) n d].

    A hard row goes on with `after`; a delta row adds `after - before` to the current embedding.
    """
    is_hard = torch.arange(len(after), device=after.device)[:, None, None] < DRAWS
    update = after - before

    def output(value: Tensor) -> Tensor:
        return torch.where(is_hard, after, value + update)

    return {passed: lambda value: value for passed in range(layer)} | {layer: output}


def velocity(
    stage: Stage, layer: int, stored: tuple[Tensor, Tensor], x: Tensor, sigma: float, step: int
) -> Tensor:
    """The velocity of every (kind, draw) at `x`, with the two ends of layers 0 to `layer` as stored."""
    with stage.layers.replaced(served(layer, *stored)) as on_pass:
        return stage.velocity(x, sigma, step, [on_pass], run=len(stage.layers) - layer - 1)


def velocities(stage: Stage, layer: int, features: Features) -> dict[str, Tensor]:
    """Each kind's velocities at the true frame, noised to each level, [sigma draw f c h w]."""
    before, after = (both(part) for part in ends(features, layer))
    by_level = [
        velocity(stage, layer, (before, after), both(stage.at_level(sigma)), sigma, step)
        for step, sigma in enumerate(stage.levels.tolist())
    ]
    return dict(zip(KINDS, torch.stack(by_level).split(DRAWS, dim=1), strict=True))


def drawn(stage: Stage, layer: int, features: Features, first: int) -> dict[str, Tensor]:
    """Each kind's frames [draw f c h w], served from step `first` of the plain path on."""
    before, after = (both(part) for part in ends(features, layer))

    def at(x: Tensor, step: int) -> Tensor:
        return velocity(stage, layer, (before, after), x, stage.sigma(step), step)

    return by_kind(stage.drawn(both(stage.path[first]), at, first))


def drawn_refreshed(stage: Stage, layer: int, every: int) -> dict[str, Tensor]:
    """Each kind's frames when features are computed at steps 0, k, 2k, ... and serve until the next."""
    newest: list[Tensor] = []

    def at(x: Tensor, step: int) -> Tensor:
        if step % every == 0:
            whole, features = stage.recorded(x, stage.sigma(step), step)
            newest[:] = ends(features, layer)
            return whole
        before, after = newest
        return velocity(stage, layer, (before, after), x, stage.sigma(step), step)

    return by_kind(stage.drawn(both(stage.noise), at))


def block_share(stage: Stage, layers: int, runs: Callable[[int], bool]) -> float:
    """The share of a plain sampler's blocks that run when so many layers do in the steps of `runs` only."""
    saved = sum(layers for step in range(stage.steps) if not runs(step))
    return 1 - saved / (stage.steps * len(stage.layers))
