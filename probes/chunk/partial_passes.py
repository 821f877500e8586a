"""Passes in which each condition runs some of the layers, many conditions in one batch.

    halves = [Partial(frozenset(range(6))), Partial(frozenset(range(6, 12)))]
    frames = generate(probe, halves, probe.noise)

A layer runs on the rows of the conditions that run it; the other rows keep their residual stream. This needs
a network that offers its layers by ranges (the trait `stack`) and contexts for fewer rows. Elsewhere, and
where one condition fills a batch, the conditions of a batch all run the same layers.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from framelens.diffusion.layers import LayerStack
from framelens.probes.chunk.chunk_probe import ChunkProbe
from framelens.probes.chunk.features import DRAWS

ALIKE = 2
"""Most conditions of a batch that all run the same layers: a context for them is always there."""

Begin = Callable[[Float[Tensor, "draw n d"]], Float[Tensor, "draw n d"]]


@dataclass(frozen=True)
class Partial:
    """The layers that one condition runs, and the residual stream before the first of them.

    `begin` gives it from the embedded tokens; None: it is these. With `begin` the first layer does not run.
    """

    runs: frozenset[int]
    begin: Begin | None = None


AnyPartial = TypeVar("AnyPartial", bound=Partial)


def all_but(probe: ChunkProbe, layers: Iterable[int]) -> frozenset[int]:
    """The layers of the stack without these."""
    return frozenset(range(len(probe.layers))) - frozenset(layers)


def above(probe: ChunkProbe, layer: int) -> frozenset[int]:
    """The layers after this one."""
    return all_but(probe, range(layer + 1))


def generate(
    probe: ChunkProbe, conditions: Sequence[Partial], x: Float[Tensor, "draw f c h w"], first: int = 0
) -> Float[Tensor, "k draw f c h w"]:
    """The generated frames of each condition, from `x` at step `first` on."""

    def draw(some: list[Partial]) -> Tensor:
        return probe.generate(
            repeat(x, some), lambda x, step: velocity(probe, some, x, probe.sigma(step), step), first
        )

    return by_batches(probe, conditions, draw)


def velocities(probe: ChunkProbe, conditions: Sequence[Partial]) -> Float[Tensor, "k sigma draw f c h w"]:
    """The velocities of each condition at the true frame, noised to each of the probe's levels."""
    levels = enumerate(probe.levels.tolist())
    by_level = [
        velocities_at(probe, conditions, probe.at_level(sigma), sigma, step) for step, sigma in levels
    ]
    return torch.stack(by_level, dim=1)


def velocities_at(
    probe: ChunkProbe,
    conditions: Sequence[Partial],
    x: Float[Tensor, "draw f c h w"],
    sigma: float,
    step: int,
) -> Float[Tensor, "k draw f c h w"]:
    """The velocity of each condition at `x`."""
    return by_batches(probe, conditions, lambda some: velocity(probe, some, repeat(x, some), sigma, step))


def by_batches(
    probe: ChunkProbe, conditions: Sequence[AnyPartial], passes: Callable[[list[AnyPartial]], Tensor]
) -> Float[Tensor, "k draw ..."]:
    """What `passes` gives, [(condition draw) ...], for each of the conditions that it is given at once."""
    found: dict[int, Tensor] = {}
    for places in _batches(probe, conditions):
        rows = passes([conditions[place] for place in places])
        found |= zip(places, rows.split(DRAWS), strict=True)
    return torch.stack([found[place] for place in range(len(conditions))])


def repeat(x: Float[Tensor, "draw ..."], conditions: Sequence[Partial]) -> Float[Tensor, "k_draw ..."]:
    """The rows of a batch of these conditions, which all have the same x."""
    return x.repeat(len(conditions), *[1] * (x.ndim - 1))


@torch.no_grad()
def velocity(
    probe: ChunkProbe, conditions: Sequence[Partial], x: Float[Tensor, "b f c h w"], sigma: float, step: int
) -> Float[Tensor, "b f c h w"]:
    """The velocity of every row (condition, draw) at `x`, of one batch of conditions."""
    stack = probe.ranges
    if stack is None or len({condition.runs for condition in conditions}) == 1:
        return _run_alike(probe, conditions, x, sigma, step)
    probe.evaluations += DRAWS * sum(len(condition.runs) for condition in conditions)
    entered = _enter(probe, stack, x, sigma)
    tokens = _begin(conditions, entered.tokens)
    for layers, places in _ranges(conditions, len(probe.layers)):
        if len(places) == len(conditions):
            tokens = stack.through(*entered._replace(tokens=tokens), layers)
        elif places:
            rows = torch.tensor([DRAWS * place + draw for place in places for draw in range(DRAWS)])
            rows = rows.to(tokens.device)
            few = _enter(probe, stack, x[: len(rows)], sigma)._replace(tokens=tokens[rows])
            tokens = tokens.index_copy(0, rows, stack.through(*few, layers))
    return stack.velocity(tokens, entered.modulations)


def _run_alike(
    probe: ChunkProbe, conditions: Sequence[Partial], x: Tensor, sigma: float, step: int
) -> Tensor:
    """The same where all conditions run the same layers: the others are replaced."""
    runs = conditions[0].runs
    passed = [layer for layer in range(len(probe.layers)) if layer not in runs]
    outputs = dict.fromkeys(passed, lambda value: value)
    if any(condition.begin for condition in conditions):
        outputs[max(layer for layer in passed if set(range(layer)) <= set(passed))] = lambda value: _begin(
            conditions, value
        )
    with probe.layers.replace_outputs(outputs) as on_pass:
        return probe.velocity(x, sigma, step, [on_pass], run=len(runs))


def _begin(conditions: Sequence[Partial], tokens: Tensor) -> Tensor:
    parts = zip(conditions, tokens.split(DRAWS), strict=True)
    return torch.cat([part if one.begin is None else one.begin(part) for one, part in parts])


def _enter(probe: ChunkProbe, stack: LayerStack, x: Tensor, sigma: float):
    level = torch.full((len(x),), sigma, device=x.device)
    return stack.enter(x, level, probe.pasts.at_level(sigma, len(x)))


def _batches(probe: ChunkProbe, conditions: Sequence[Partial]) -> Iterator[list[int]]:
    """The places of the conditions that make a batch, those with the same layers side by side."""
    order = sorted(range(len(conditions)), key=lambda place: sorted(conditions[place].runs))
    if probe.ranges is not None:
        groups, size = [order], probe.batch
    else:
        alike = groupby(order, key=lambda place: conditions[place].runs)
        groups, size = [list(places) for _, places in alike], ALIKE
    for group in groups:
        yield from (group[start : start + size] for start in range(0, len(group), size))


def _ranges(conditions: Sequence[Partial], depth: int) -> Iterator[tuple[range, list[int]]]:
    """Neighbouring layers that the same conditions run, and the places of these conditions."""
    running = [[k for k, one in enumerate(conditions) if layer in one.runs] for layer in range(depth)]
    for places, layers in groupby(range(depth), key=lambda layer: running[layer]):
        span = list(layers)
        yield range(span[0], span[-1] + 1), places
