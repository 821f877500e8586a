"""What a linear map can read from a layer's tokens about clips it has never seen.

r2 = ridge_readout(features, targets)                    # [c n d], [c n m] -> [c]
null = ridge_readout(features, shuffle_clips(targets))   # another clip's targets
maps = fit_left_out(features, targets)                   # maps[0].read(features[maps[0].clips])
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from framelens.analyses.nested_folds import LEAST, choose_penalties, inverse_spread, number_films, split_clips

ALPHAS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)


def ridge_readout(
    features: Float[Tensor, "c n d"], targets: Float[Tensor, "c n m"], films: Sequence[str] | None = None
) -> Float[Tensor, " c"]:
    """R² of a ridge regression from tokens to targets, per clip, on clips left out of the fit.

    R² = 1 - Σ|y - ŷ|² / Σ|y - ȳ|² with sums over the tokens of one clip and ȳ
    the mean target of the training clips at each token position: what can be
    predicted from position alone does not count, and neither does a clip's identity,
    since the scored clip is not in the fit. Features lose their training mean at each position and
    are divided by their standard deviation. The penalty is alpha times the
    number of training tokens; alpha, one of ALPHAS, is chosen inside the training
    clips, by leaving each of their groups out in turn. All in float64. NaN for a
    clip whose targets equal the mean. With the film of each clip, whole films are left out. ValueError below
    LEAST clips, or films.
    """
    x, y = (values.double() - values.double().mean(0) for values in (features, targets))
    r2 = x.new_full((len(x),), torch.nan)
    for held_out, fit in _fit_left_out(x, y, films):
        error, baseline = _measure_errors(fit, x[held_out], y[held_out])
        r2[held_out] = 1 - error[0] / baseline
    return r2


class LeftOut(NamedTuple):
    """A linear map from a token to values, and the clips that it was fitted without."""

    clips: Int[Tensor, " held_out"]
    tokens: Float[Tensor, "n d"]
    values: Float[Tensor, "n m"]
    weights: Float[Tensor, "d m"]

    def read(self, tokens: Float[Tensor, "*c n d"]) -> Float[Tensor, "*c n m"]:
        """What the map makes of tokens, in float64: the mean values of the training clips, and what tokens
        add to them by their distance from the mean tokens."""
        return self.values + (tokens.double() - self.tokens) @ self.weights


def fit_left_out(
    features: Float[Tensor, "c n d"], targets: Float[Tensor, "c n m"], films: Sequence[str] | None = None
) -> list[LeftOut]:
    """The regressions of `ridge_readout`, one for each group of clips that is left out.

    ValueError below LEAST clips, or films.
    """
    x, y = features.double(), targets.double()
    means = x.mean(0), y.mean(0)
    fits = _fit_left_out(x - means[0], y - means[1], films)
    return [LeftOut(clips, fit.x + means[0], fit.y + means[1], fit.weights[0]) for clips, fit in fits]


def _fit_left_out(
    x: Float[Tensor, "c n d"], y: Float[Tensor, "c n m"], films: Sequence[str] | None
) -> Iterator[tuple[Tensor, "_Fit"]]:
    """Each group of clips with the regression on all others, whose penalty is chosen inside these."""
    clips, unit = len(x), "clips" if films is None else "films"
    count = clips if films is None else len(set(films))
    if count < LEAST:
        raise ValueError(f"a readout needs at least {LEAST} {unit}, got {count} {unit}")
    folds = split_clips(clips, x.device, films)
    groups = [_sum_up(fold, x[fold], y[fold]) for fold in folds]

    def without(*left_out: int) -> list[_Group]:
        return [group for fold, group in enumerate(groups) if fold not in left_out]

    best = choose_penalties(
        len(folds),
        lambda pair: _fit(without(*pair), ALPHAS),
        lambda fit, fold: _measure_errors(fit, x[folds[fold]], y[folds[fold]])[0].sum(1),
    )
    for fold, held_out in enumerate(folds):
        yield held_out, _fit(without(fold), [ALPHAS[best[fold]]])


def shuffle_clips(
    targets: Float[Tensor, "c ..."], seed: int = 0, films: Sequence[str] | None = None
) -> Float[Tensor, "c ..."]:
    """The targets in one random cycle over the clips, so that every clip gets another one's.

    With the film of each clip, it gets that of another film, unless more than half of the clips are of one.
    """
    cycle, shift = torch.randperm(len(targets), generator=torch.Generator().manual_seed(seed)), 1
    if films is not None:
        # Clips in order of film, shifted by the number of clips of the largest film.
        numbers = number_films(films)
        cycle, shift = cycle[numbers[cycle].argsort(stable=True)], int(numbers.bincount().max())
    cycle = cycle.to(targets.device)
    shuffled = torch.empty_like(targets)
    shuffled[cycle] = targets[cycle.roll(shift)]
    return shuffled


class _Group(NamedTuple):
    """Sums over some clips; those of several groups add up to what a fit needs."""

    clips: Tensor
    gram: Tensor
    cross: Tensor
    x: Tensor
    y: Tensor


class _Fit(NamedTuple):
    """Mean features and targets at each position, and the weights of each alpha."""

    x: Tensor
    y: Tensor
    weights: Tensor


def _sum_up(clips: Tensor, x: Float[Tensor, "c n d"], y: Float[Tensor, "c n m"]) -> _Group:
    rows, values = x.flatten(0, 1), y.flatten(0, 1)
    return _Group(clips, rows.mT @ rows, rows.mT @ values, x.sum(0), y.sum(0))


def _fit(groups: Sequence[_Group], alphas: Sequence[float]) -> _Fit:
    """Ridge weights from Σ_c (X_c - X̄)ᵀ(X_c - X̄) = Σ_c X_cᵀ X_c - c X̄ᵀ X̄, X̄ the mean at each position."""
    clips = sum(len(group.clips) for group in groups)
    gram, cross, x, y = (
        torch.stack([getattr(group, part) for group in groups]).sum(0) for part in ("gram", "cross", "x", "y")
    )
    x, y = x / clips, y / clips
    gram, cross = gram - clips * x.mT @ x, cross - clips * x.mT @ y
    tokens = clips * len(x)
    spread = (gram.diagonal().clamp(min=0) / tokens).sqrt()
    scale = inverse_spread(spread, 1e-9)
    gram, cross = gram * scale * scale[:, None] / tokens, cross * scale[:, None] / tokens
    one = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    weights = [torch.cholesky_solve(cross, torch.linalg.cholesky(gram + alpha * one)) for alpha in alphas]
    return _Fit(x, y, torch.stack(weights) * scale[:, None])


def _measure_errors(
    fit: _Fit, x: Float[Tensor, "c n d"], y: Float[Tensor, "c n m"]
) -> tuple[Float[Tensor, "a c"], Float[Tensor, " c"]]:
    """Squared error of each alpha and of the mean, summed over the tokens of each clip."""
    x, y = x - fit.x, y - fit.y
    errors = torch.stack([(y - x @ weights).square().sum((1, 2)) for weights in fit.weights])
    return errors, y.square().sum((1, 2))
