"""What the ridge regressions have in common: folds of clips, the choice of the penalty, scaling.

    folds = split_clips(len(x), x.device)
    best = choose_penalties(len(folds), fit, errors)      # of each fold, an index into the penalties

Each fold is left out in turn. Its penalty is the one with the smallest error on the other folds, each of
which is predicted by a fit without it (nested cross-validation): no fit sees a clip that it is scored on.
"""

from collections.abc import Callable
from itertools import combinations
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

FOLDS = 5
LEAST = 4
"""Clips: fewer are not enough to choose the penalty."""
Fit = TypeVar("Fit")


def split_clips(clips: int, device: torch.device) -> tuple[Tensor, ...]:
    """The indices of clips in random FOLDS, one clip each where there are fewer; always the same."""
    order = torch.randperm(clips, generator=torch.Generator().manual_seed(0)).to(device)
    return order.tensor_split(min(FOLDS, clips))


def choose_penalties(
    folds: int,
    fit: Callable[[tuple[int, int]], Fit],
    errors: Callable[[Fit, int], Float[Tensor, " penalty"]],
) -> list[int]:
    """The index of the best penalty of each fold.

    `fit` is the regression without these two folds, and `errors` its squared error on a fold, by penalty.
    """
    sums: dict[int, Tensor] = {}
    for pair in combinations(range(folds), 2):
        fitted = fit(pair)
        for fold, held_out in (pair, pair[::-1]):
            error = errors(fitted, held_out)
            sums[fold] = sums[fold] + error if fold in sums else error
    return [int(sums[fold].argmin()) for fold in range(folds)]


def inverse_spread(spread: Float[Tensor, "*fit d"], floor: float) -> Float[Tensor, "*fit d"]:
    """1 / spread, and 0 where a spread is below `floor` times the largest of its fit.

    A channel that never varies says nothing; dividing by its rounding error would make it noise.
    """
    return torch.where(spread > floor * spread.amax(-1, keepdim=True), 1 / spread, 0)
