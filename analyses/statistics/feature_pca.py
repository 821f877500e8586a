"""The first three principal components of a layer's tokens, as a picture at a few denoising steps.

    statistic = Statistic(steps=(0, 12, 24))
    statistic.add(at, "blocks.3.hook_resid_post", value)     # [b n d]
    statistic.result().components               # (clip, frame, layer, pca_step, token, component)

The basis is fitted to all these steps of one clip, frame and layer together, so that a colour means
the same at each step. Above `exact_tokens` tokens only the 16 leading directions of each step are kept,
so that the statistic needs little memory compared with the network.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from framelens.analyses.cost import FLOAT32, StatisticCost, WatchedShape
from framelens.analyses.sums.layout import PROBING, Labels, Moment, tabulate, variable
from framelens.analyses.sums.low_rank import (
    RANK,
    LowRank,
    joint_components,
    joint_products,
    low_rank,
    low_rank_bytes,
    low_rank_products,
)

reads: tuple[str, ...] = ("*blocks.*.hook_resid_post",)

STEPS = 6
"""Steps of a run that are shown, at most."""
EXACT_TOKENS = 128
# Up to this width the covariance is diagonalised; above it, subspace iteration is used.
_DIRECT = 256
_DIRECTIONS, _ROUNDS = 16, 12
"""Directions that are iterated to find 3, and rounds; the error falls as (λ17/λ3)^12."""


class Statistic:
    """Principal components at these steps; every frame must have all of them."""

    def __init__(self, steps: Sequence[int], exact_tokens: int = EXACT_TOKENS):
        self.steps, self.exact_tokens = sorted(steps), exact_tokens
        self._labels = Labels()
        self._frame = -1
        self._kept: dict[str, dict[int, Tensor | LowRank]] = {}
        self._components: dict[tuple[int, str], Tensor] = {}
        self._explained: dict[tuple[int, str], Tensor] = {}

    def add(self, at: Moment, name: str, value: Float[Tensor, "b n d"]) -> None:
        """Keeps the features of a chosen step."""
        if at.frame != self._frame:
            self._finish()
            self._frame = at.frame
        self._labels.note(at, name)
        if at.step in self.steps:
            kept = low_rank(value) if self._is_large(*value.shape[1:]) else value.clone()
            self._kept.setdefault(name, {})[at.step] = kept

    def result(self) -> xr.Dataset:
        """components, scaled to unit maximum, and the share of variance each explains."""
        self._finish()
        coords = self._labels.coords("pca_step", self.steps)
        axes = self._labels.frames, self._labels.points
        components, explained = (tabulate(cells, *axes) for cells in (self._components, self._explained))
        dims = "clip frame layer pca_step token component"
        variables = {
            "components": variable(dims, components, "1", "principal component, unit maximum", PROBING),
            "explained": variable("clip frame layer component", explained, "1", "share of variance", PROBING),
        }
        tokens = {"token": np.arange(components.shape[4]), "component": np.arange(3)}
        return xr.Dataset(variables, coords | tokens)

    def cost(self, shape: WatchedShape) -> StatisticCost:
        """Kept: values of the current frame, as they are or as their leading directions, and the components
        of earlier frames."""
        n, d, steps = shape.tokens, shape.width, len(self.steps)
        if self._is_large(n, d):
            products = steps * low_rank_products(n, d) + joint_products(n, d, steps)
            others, held = 0, low_rank_bytes(n, d)
        else:
            products, others = _products(steps * n, d), _decomposition(d)
            held = n * d * shape.value_bytes
        components = 3 * FLOAT32 * (steps * n + 1)
        kept = shape.layers * (steps * held + (shape.frames - 1) * components)
        times = shape.layers * shape.frames
        return StatisticCost(times * products, times * others, kept)

    def _is_large(self, tokens: int, width: int) -> bool:
        return tokens > self.exact_tokens and width > 4 * RANK

    def _finish(self) -> None:
        """Fits the frame that just ended and frees its features."""
        while self._kept:
            point, kept = self._kept.popitem()
            if sorted(kept) != self.steps:
                raise ValueError(
                    f"{point} has steps {sorted(kept)} at frame {self._frame}; expected {self.steps}"
                )
            scores, explained = _components([kept[step] for step in self.steps])
            scores = scores / scores.abs().amax(1, keepdim=True).clamp(min=torch.finfo(scores.dtype).tiny)
            self._components[self._frame, point] = scores.unflatten(1, (len(self.steps), -1))
            self._explained[self._frame, point] = explained


def _components(steps: list[Tensor | LowRank]) -> tuple[Float[Tensor, "b r 3"], Float[Tensor, "b 3"]]:
    """Scores and shares of all tokens of these steps, kept in either form."""
    whole = [step for step in steps if isinstance(step, Tensor)]
    if whole:
        return principal_components(torch.cat(whole, 1).float())
    scores, explained = joint_components([step for step in steps if isinstance(step, LowRank)])
    return _upright(scores), explained


def principal_components(rows: Float[Tensor, "b r d"]) -> tuple[Float[Tensor, "b r 3"], Float[Tensor, "b 3"]]:
    """Scores on the three leading components, and the share of variance of each.

    Signs are such that the largest score of a component is positive. Missing
    components (fewer than three dimensions) are zero.
    """
    centred = rows - rows.mean(1, keepdim=True)
    basis = _leading(centred)
    scores = _upright(centred @ basis)
    missing = 3 - scores.shape[-1]
    scores = torch.nn.functional.pad(scores, (0, missing))
    variance = scores.square().sum(1) / centred.square().sum((1, 2), keepdim=True)[:, 0]
    return scores, variance


def _upright(scores: Float[Tensor, "b r m"]) -> Float[Tensor, "b r m"]:
    """Scores with the signs that make the largest of each component positive."""
    largest = scores.gather(1, scores.abs().argmax(1, keepdim=True))
    return torch.where(largest < 0, -scores, scores)


def _leading(centred: Float[Tensor, "b r d"]) -> Float[Tensor, "b d m"]:
    """Three orthonormal directions of largest variance: exact up to _DIRECT channels, else by iteration."""
    if centred.shape[2] <= _DIRECT:
        exact = centred.double()
        return torch.linalg.eigh(exact.mT @ exact).eigenvectors.flip(-1)[..., :3].to(centred.dtype)
    draws = torch.Generator().manual_seed(0)
    block = torch.randn(centred.shape[-1], _DIRECTIONS, generator=draws).to(centred)
    for _ in range(_ROUNDS):
        block = torch.linalg.qr(centred.mT @ (centred @ block)).Q
    inside = torch.linalg.svd(centred @ block, full_matrices=False).Vh
    return (block @ inside.mT)[..., :3]


def _products(rows: int, width: int) -> int:
    """Operations of the matrix products in `principal_components` of `rows` tokens."""
    if width <= _DIRECT:
        basis = 2 * rows * width**2
    else:
        basis = 2 * width * _DIRECTIONS * ((2 * _ROUNDS + 1) * rows + min(rows, _DIRECTIONS))
    return basis + 2 * rows * width * min(3, width)


def _decomposition(width: int) -> int:
    """Operations of the eigenproblem, about 10 d³; those of the iteration are not counted."""
    return 10 * width**3 if width <= _DIRECT else 0


def for_run(settings: Any) -> Statistic:
    """The statistic at STEPS of the steps that the run watches."""
    return Statistic(space_evenly(settings.watched_steps, STEPS))


def space_evenly(steps: list[int], count: int) -> list[int]:
    """At most `count` of the steps, spaced as evenly as possible, with the first and the last."""
    wanted = np.linspace(steps[0], steps[-1], count)
    return sorted({min(steps, key=lambda step: abs(step - goal)) for goal in wanted})
