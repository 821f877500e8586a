"""What a linear map can read of a known state from a layer's features, about clips it has never seen.

score = state_readout(features, values)                     # [c n d], [c n k] -> [c 1]: R²
score = state_readout(features, kinds, classes=8)           # [c n d], [c n 1] -> [c 1]: balanced accuracy
null = state_readout(features, shuffle_clips(values))       # another clip's state
"""

from collections.abc import Sequence
from itertools import combinations_with_replacement
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from framelens.analyses.nested_folds import LEAST, choose_penalties, inverse_spread, split_clips

ALPHAS = (100.0, 10.0, 1.0, 1e-1, 1e-2, 1e-3, 1e-4)


def state_readout(
    features: Float[Tensor, "c n d"],
    values: Float[Tensor, "c n k"],
    classes: int = 0,
    parts: int = 1,
) -> Float[Tensor, "c parts"]:
    """How well ridge regression reads the state of clips that are in no fit; 1 is perfect.

    Rows whose values are not all finite do not count. Numbers: R² = 1 - q, q = mean_c(e_c) / mean_c(e0_c),
    e_c the mean squared error of a clip, e0_c that of the training clips' mean, each value divided by its
    standard deviation; a clip's score is 1 - q - (e_c - q e0_c) / mean_c(e0_c), whose mean is R² and whose
    spread is that of R² (a ratio, linearised). With `classes`, k = 1 holds the class: regression on its
    indicators, every class weighted alike in each fit, the largest wins; the score is the share read right,
    weighted likewise over all clips, so that 1 / classes is chance.
    `parts` scores that many equal stretches of the n rows apart, from one fit.

    Clips, never rows, are split into FOLDS. The penalty (one of ALPHAS, per row, features divided by their
    standard deviation) is chosen among the clips that are not left out, by leaving each of their folds out
    in turn. In float64. NaN for clips without a row. ValueError below LEAST clips.
    """
    clips = len(values)
    if clips < LEAST:
        raise ValueError(f"reading a state needs at least {LEAST} clips, got {clips}: raise --clips")
    is_row = values.isfinite().all(-1) & features.isfinite().all(-1)
    if not is_row.any():
        return torch.full((clips, parts), torch.nan, dtype=torch.float64)
    x = torch.where(is_row[..., None], features.double(), 0)
    y, weights = _numbers(values, is_row) if classes == 0 else _indicators(values, is_row, classes)
    folds = split_clips(clips, x.device)
    strata = y if classes else weights[..., None]
    predicted, mean = _left_out(x, y, weights, strata, folds)
    if classes:
        gained = (predicted.argmax(-1) == y.argmax(-1)).double()
        return _mean_over_rows(gained, weights, parts)
    error = _mean_over_rows((y - predicted).square().mean(-1), weights, parts)
    baseline = _mean_over_rows((y - mean).square().mean(-1), weights, parts)
    whole = baseline.nanmean(0)
    whole = torch.where(whole > 1e-12, whole, torch.nan)
    left = error.nanmean(0) / whole
    return 1 - left - (error - left * baseline) / whole


def _numbers(values: Tensor, is_row: Bool[Tensor, "c n"]) -> tuple[Tensor, Tensor]:
    """Values divided by their standard deviation, 0 for missing rows, and a weight of 1 a row."""
    y = torch.where(is_row[..., None], values.double(), 0)
    spread = y[is_row].std(0, correction=0)
    return y / torch.where(spread > 0, spread, 1), is_row.double()


def _indicators(values: Tensor, is_row: Bool[Tensor, "c n"], classes: int) -> tuple[Tensor, Tensor]:
    """One-hot rows, and weights by which the classes that occur count alike."""
    kind = torch.where(is_row, values[..., 0], 0).long()
    y = torch.nn.functional.one_hot(kind, classes).double() * is_row[..., None]
    counts = y.sum((0, 1))
    weights = (y / counts.clamp(min=1)).sum(-1) * is_row.sum() / classes
    return y, weights


class _Sums(NamedTuple):
    """Sums over the rows of each stratum; those of several folds add up to what a fit needs."""

    rows: Float[Tensor, "*fold stratum"]
    x: Float[Tensor, "*fold stratum d"]
    y: Float[Tensor, "*fold stratum k"]
    gram: Float[Tensor, "*fold stratum d d"]
    cross: Float[Tensor, "*fold stratum d k"]


def _left_out(
    x: Float[Tensor, "c n d"],
    y: Float[Tensor, "c n k"],
    weights: Float[Tensor, "c n"],
    strata: Float[Tensor, "c n stratum"],
    folds: Sequence[Tensor],
) -> tuple[Float[Tensor, "c n k"], Float[Tensor, "c n k"]]:
    """Of every clip, what the fit without its fold predicts, and that fit's mean.

    Rows of one stratum count alike in a fit, and the strata as much as each other.
    """
    by_fold = [_sum_up(x[fold], y[fold], strata[fold]) for fold in folds]
    sums = _Sums(*(torch.stack(parts) for parts in zip(*by_fold, strict=True)))
    pairs = list(combinations_with_replacement(range(len(folds)), 2))
    keep = torch.ones(len(pairs), len(folds), dtype=x.dtype, device=x.device)
    for fit, pair in enumerate(pairs):
        keep[fit, list(pair)] = 0
    fits, by_stratum = _Fits(sums, keep), _weigh_strata(weights, strata)
    best = choose_penalties(
        len(folds),
        lambda pair: (pairs.index(pair), fits.weights(pairs.index(pair), ALPHAS)),
        lambda fitted, fold: fits.measure_errors(*fitted, fold, by_stratum),
    )
    predicted, mean = torch.full_like(y, torch.nan), torch.full_like(y, torch.nan)
    for fold, clips in enumerate(folds):
        fit = pairs.index((fold, fold))
        predicted[clips] = fits.predict(fit, x[clips], ALPHAS[best[fold]])
        mean[clips] = fits.y[fit]
    return predicted, mean


def _weigh_strata(
    weights: Float[Tensor, "c n"], strata: Float[Tensor, "c n stratum"]
) -> Float[Tensor, " stratum"]:
    """The weight of a row of each stratum, which all of its rows have; 0 where there is none."""
    is_there = (strata > 0).to(weights.dtype)
    return torch.tensordot(weights, is_there, 2) / is_there.sum((0, 1)).clamp(min=1)


def _sum_up(x: Float[Tensor, "c n d"], y: Float[Tensor, "c n k"], strata: Float[Tensor, "c n s"]) -> _Sums:
    chosen = [strata[..., stratum] > 0 for stratum in range(strata.shape[-1])]
    parts = [(x[rows], y[rows]) for rows in chosen]
    sums = [(len(x) * x.new_ones(()), x.sum(0), y.sum(0), x.mT @ x, x.mT @ y) for x, y in parts]
    return _Sums(*(torch.stack(part) for part in zip(*sums, strict=True)))


class _Fits:
    """A ridge regression on each choice of folds, for any penalty."""

    def __init__(self, sums: _Sums, keep: Float[Tensor, "fit fold"]):
        rows = keep @ sums.rows
        is_there = rows > 0
        share = is_there / (rows * is_there.sum(1, keepdim=True)).clamp(min=1)  # of a row, by stratum
        kept = [torch.tensordot(keep, part, 1) for part in sums[1:]]
        self.x, self.y, gram, cross = (torch.einsum("fs,fs...->f...", share, part) for part in kept)
        covariance = gram - self.x[:, :, None] * self.x[:, None]
        shared = cross - self.x[:, :, None] * self.y[:, None]
        spread = covariance.diagonal(dim1=1, dim2=2).clamp(min=0).sqrt()
        self.scale = inverse_spread(spread, 1e-7)
        covariance = covariance * self.scale[:, :, None] * self.scale[:, None]
        self.values, self.vectors = torch.linalg.eigh(covariance)
        self.shared, self.sums = self.vectors.mT @ (shared * self.scale[:, :, None]), sums

    def weights(self, fit: int, alphas: Sequence[float]) -> Float[Tensor, "alpha d k"]:
        """What that fit reads from each channel, with each penalty."""
        penalty = torch.tensor(alphas, dtype=self.x.dtype, device=self.x.device)[:, None, None]
        shrunk = self.shared[fit] / (self.values[fit].clamp(min=0)[:, None] + penalty)
        return self.scale[fit][:, None] * (self.vectors[fit] @ shrunk)

    def predict(self, fit: int, x: Float[Tensor, "*rows d"], alpha: float) -> Float[Tensor, "*rows k"]:
        """What that fit predicts from these features, with one penalty."""
        return (x - self.x[fit]) @ self.weights(fit, [alpha])[0] + self.y[fit]

    def measure_errors(
        self, fit: int, weights: Float[Tensor, "alpha d k"], fold: int, by_stratum: Float[Tensor, " stratum"]
    ) -> Float[Tensor, " alpha"]:
        """Weighted squared error of each penalty on a fold that the fit has not seen, less that of zeros.

        From the sums of the fold: of its rows, there are many more.
        """
        rows, x, y, gram, cross = (torch.tensordot(by_stratum, part[fold], 1) for part in self.sums)
        at_zero = self.y[fit] - self.x[fit] @ weights  # [alpha k], what is predicted where x is 0
        squared = (weights * (gram @ weights)).sum((1, 2)) + rows * at_zero.square().sum(1)
        return squared + 2 * ((at_zero * (x @ weights - y)).sum(1) - (weights * cross).sum((1, 2)))


def _mean_over_rows(
    values: Float[Tensor, "c n"], weights: Float[Tensor, "c n"], parts: int
) -> Float[Tensor, "c parts"]:
    """Weighted mean over the rows of each clip and part; NaN where there is none."""
    values, weights = (rows.unflatten(1, (parts, -1)) for rows in (values, weights))
    return (values * weights).sum(-1) / weights.sum(-1)
