"""What a linear map can read of a known state from a layer's features, about clips it has never seen.

score = state_readout(features, values)                     # [c n d], [c n k] -> [c 1]: R²
score = state_readout(features, kinds, classes=8)           # [c n d], [c n 1] -> [c 1]: balanced accuracy
null = state_readout(features, shuffle_clips(values))       # another clip's state
levels = state_readout(torch.stack(several), values)        # [s c n d], [c n k] -> [s c 1]: each read apart
"""

from collections.abc import Sequence
from itertools import combinations_with_replacement

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import one_hot

from framelens.analyses.nested_folds import FOLDS, LEAST, choose_penalties, inverse_spread, split_clips

ALPHAS = (100.0, 10.0, 1.0, 1e-1, 1e-2, 1e-3, 1e-4)


def state_readout(
    features: Float[Tensor, "*s c n d"],
    values: Float[Tensor, "c n k"],
    classes: int = 0,
    parts: int = 1,
) -> Float[Tensor, "*s c parts"]:
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
    clip, place = values.isfinite().all(-1).nonzero().unbind(1)
    strata = max(classes, 1)
    kind = values[clip, place, 0].long() if classes else torch.zeros_like(clip)
    group = _folds_of_clips(clips, clip.device)[clip] * strata + kind
    clip, place, kind = (of_row[group.argsort()] for of_row in (clip, place, kind))
    x = features.reshape(-1, *features.shape[-3:])[:, clip, place]
    if not x.isfinite().all():
        return _read_finite_rows(features, values, classes, parts)
    y = one_hot(kind, classes).double() if classes else _divide_by_spread(values[clip, place].double())
    counts = group.bincount(minlength=FOLDS * strata).reshape(FOLDS, strata)
    predicted, mean = _left_out(x, y, counts)
    row_weights, part = _weigh_strata(counts)[kind], clip * parts + place * parts // values.shape[1]

    def average(of_rows: Float[Tensor, "s r"]) -> Float[Tensor, "*s c parts"]:
        sums = row_weights.new_zeros(len(x), clips * parts).index_add(1, part, of_rows * row_weights)
        mean = sums / row_weights.new_zeros(clips * parts).index_add(0, part, row_weights)
        return mean.reshape(*features.shape[:-3], clips, parts)

    if classes:
        return average((predicted.argmax(-1) == kind).double())
    error, baseline = (average((y - read).square().mean(-1)) for read in (predicted, mean))
    whole = baseline.nanmean(-2, keepdim=True)
    whole = torch.where(whole > 1e-12, whole, torch.nan)
    left = error.nanmean(-2, keepdim=True) / whole
    return 1 - left - (error - left * baseline) / whole


def _read_finite_rows(features: Tensor, values: Tensor, classes: int, parts: int) -> Tensor:
    """The scores where some features are not finite: their rows do not count either."""
    if features.ndim > 3:
        return torch.stack([state_readout(each, values, classes, parts) for each in features])
    is_finite = features.isfinite().all(-1, keepdim=True)
    return state_readout(features, values.where(is_finite, torch.nan), classes, parts)


def _divide_by_spread(values: Float[Tensor, "r k"]) -> Float[Tensor, "r k"]:
    spread = values.std(0, correction=0)
    return values / torch.where(spread > 0, spread, 1)


def _folds_of_clips(clips: int, device: torch.device) -> Int[Tensor, " clip"]:
    folds = split_clips(clips, device)
    numbers = torch.arange(len(folds), device=device)
    return numbers.repeat_interleave(torch.tensor([*map(len, folds)]))[torch.cat(folds).argsort()]


def _weigh_strata(counts: Int[Tensor, "fold stratum"]) -> Float[Tensor, " stratum"]:
    """What a row of each stratum weighs where the strata count alike; 1 on average."""
    return counts.sum() / (counts.shape[1] * counts.sum(0).clamp(min=1).double())


def _left_out(
    x: Float[Tensor, "s r d"], y: Float[Tensor, "r k"], counts: Int[Tensor, "fold stratum"]
) -> tuple[Float[Tensor, "s r k"], Float[Tensor, "s r k"]]:
    """Of every row, what the fit without its fold predicts, and that fit's mean.

    Rows are in the order of folds, and in a fold of strata, as `counts` says. Rows of one stratum count as
    much in a fit, and the strata as much as each other.
    """
    size, values = 1 + x.shape[-1], y.shape[-1]
    table = torch.cat([y.new_ones(*x.shape[:2], 1), x.double(), y.expand(len(x), -1, -1)], -1)
    table[..., 1:size] -= table[..., 1:size].mean(1, keepdim=True)
    left_out = list(combinations_with_replacement(range(FOLDS), 2))
    fits, held_out = _sum_up(table, counts, left_out)
    alphas = y.new_tensor(ALPHAS)
    best = choose_penalties(
        FOLDS,
        lambda pair: _fit(fits[:, left_out.index(pair)], values, alphas),
        lambda weights, fold: _measure_errors(weights, held_out[:, fold]),
    )
    alone = fits[:, [left_out.index((fold, fold)) for fold in range(FOLDS)]]
    weights = _fit(alone, values, alphas[torch.stack(best, 1)][..., None])[:, :, 0]
    by_fold = table[..., :size].split(counts.sum(1).tolist(), 1)
    predicted = [rows @ weights[:, fold] for fold, rows in enumerate(by_fold)]
    mean = alone[:, :, 0, size:].repeat_interleave(counts.sum(1), 1)
    return torch.cat(predicted, 1), mean


def _sum_up(
    table: Float[Tensor, "s r m"], counts: Int[Tensor, "fold stratum"], left_out: Sequence[tuple[int, int]]
) -> tuple[Float[Tensor, "s fit m m"], Float[Tensor, "s fold m m"]]:
    """Products of any two columns: their means over the rows that each fit keeps, and their sums over each
    fold, with the strata alike."""
    groups = table.split(counts.flatten().tolist(), 1)
    moments = torch.stack([group.mT @ group for group in groups], 1).flatten(2)
    keep = torch.stack([table.new_tensor([fold not in pair for fold in range(FOLDS)]) for pair in left_out])
    kept = keep @ counts.double()
    of_row = (kept > 0) / (kept * (kept > 0).sum(1, keepdim=True)).clamp(min=1)
    scored = torch.eye(FOLDS).to(keep)[:, :, None] * _weigh_strata(counts)
    factors = torch.cat([keep[:, :, None] * of_row[:, None], scored]).flatten(1)
    weighed = (factors @ moments).unflatten(2, (table.shape[-1], -1))
    return weighed[:, : len(left_out)], weighed[:, len(left_out) :]


def _fit(
    moments: Float[Tensor, "*fit m m"], values: int, alphas: Float[Tensor, "*#fit alpha"]
) -> Float[Tensor, "*fit alpha p k"]:
    """Ridge regressions on a constant, which has no penalty, and all features: their weights by penalty.

    Zeros where the moments are those of no row.
    """
    size = moments.shape[-1] - values
    gram, cross = moments[..., :size, :size], moments[..., :size, size:]
    variance = gram.diagonal(dim1=-2, dim2=-1) - gram[..., 0, :].square()
    scale = inverse_spread(variance.clamp(min=0).sqrt(), 1e-7)
    scale[..., 0] = 1
    gram = (gram * scale[..., :, None] * scale[..., None, :])[..., None, :, :]
    gram = gram.repeat_interleave(alphas.shape[-1], -3)
    gram.diagonal(dim1=-2, dim2=-1)[..., 1:] += alphas[..., None]
    factor, failed = torch.linalg.cholesky_ex(gram)
    weights = torch.cholesky_solve((cross * scale[..., None])[..., None, :, :], factor)
    return torch.where(failed[..., None, None] == 0, weights * scale[..., None, :, None], 0)


def _measure_errors(
    weights: Float[Tensor, "s alpha p k"], moments: Float[Tensor, "s m m"]
) -> Float[Tensor, "s alpha"]:
    """Weighted squared error of each penalty on the rows of these moments, less that of zeros."""
    size = weights.shape[-2]
    gram, cross = moments[:, :size, :size], moments[:, None, :size, size:]
    return (weights * (torch.einsum("spq,saqk->sapk", gram, weights) - 2 * cross)).sum((-2, -1))
