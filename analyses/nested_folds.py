"""What the ridge regressions have in common: folds of clips, the choice of the penalty, scaling.

    folds = split_clips(len(x), x.device)
    best = choose_penalties(len(folds), fit, errors)      # of each fold, an index into the penalties

Each fold is left out in turn. Its penalty is the one with the smallest error on the other folds, each of
which is predicted by a fit without it (nested cross-validation): no fit sees a clip that it is scored on.
"""

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

FOLDS = 5
LEAST = 4
"""Clips: fewer are not enough to choose the penalty."""
Fit = TypeVar("Fit")


def split_clips(clips: int, device: torch.device, films: Sequence[str] | None = None) -> tuple[Tensor, ...]:
    """The indices of clips in random FOLDS, one clip each where there are fewer; always the same.

    With the film of each clip, films are split, and all clips of a film are in one fold.
    """
    groups = torch.arange(clips) if films is None else number_films(films)
    count = int(groups.max()) + 1
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    folds = order.tensor_split(min(FOLDS, count))
    if films is None:
        return tuple(fold.to(device) for fold in folds)
    return tuple(torch.isin(groups, fold).nonzero()[:, 0].to(device) for fold in folds)


def number_films(films: Sequence[str]) -> Int[Tensor, " clip"]:
    """The film of each clip as a number, in order of appearance."""
    numbers = {film: number for number, film in enumerate(dict.fromkeys(films))}
    return torch.tensor([numbers[film] for film in films])


def choose_penalties(
    folds: int,
    fit: Callable[[tuple[int, int]], Fit],
    errors: Callable[[Fit, int], Float[Tensor, "*s penalty"]],
) -> list[Int[Tensor, "*s"]]:
    """The index of the best penalty of each fold.

    `fit` is the regression without these two folds, and `errors` its squared error on a fold, by penalty;
    several regressions that are done together each have their own.
    """
    sums: dict[int, Tensor] = {}
    for pair in combinations(range(folds), 2):
        fitted = fit(pair)
        for fold, held_out in (pair, pair[::-1]):
            error = errors(fitted, held_out)
            sums[fold] = sums[fold] + error if fold in sums else error
    return [sums[fold].argmin(-1) for fold in range(folds)]


def inverse_spread(spread: Float[Tensor, "*fit d"], floor: float) -> Float[Tensor, "*fit d"]:
    """1 / spread, and 0 where a spread is below `floor` times the largest of its fit.

    A channel that never varies says nothing; dividing by its rounding error would make it noise.
    """
    return torch.where(spread > floor * spread.amax(-1, keepdim=True), 1 / spread, 0)
