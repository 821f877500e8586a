"""Error bars over clips.

mean, low, high = bootstrap(cosine)          # [clip, ...] -> three arrays [...]
enough(clips=3)                              # False: an interval would say little
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

# Columns resampled at once: 2000 draws of 4096 means are 64 MB.
_TOGETHER = 4096


class Interval(NamedTuple):
    """A mean over clips and the ends of its interval."""

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def enough(clips: int) -> bool:
    """Whether an interval over this many clips is worth drawing: five or more."""
    return clips >= 5


def bootstrap(
    values: Float[np.ndarray, "clip ..."], confidence: float = 0.95, draws: int = 2000, seed: int = 0
) -> Interval:
    """Mean over the first axis, with the percentile bootstrap interval of that mean.

    Clips are drawn with replacement, the same ones for every entry after the
    first axis. NaN is a missing clip: left out of each mean it is drawn into.
    Below two finite clips low and high are NaN, since one clip shows no spread.
    For normal values the 95 % interval covers the true mean in about 84 % of
    cases with 5 clips, 90 % with 10, 93 % with 20, 94 % with 40.
    """
    if not 0 < confidence < 1 or len(values) == 0:
        raise ValueError(
            f"got confidence {confidence}, {len(values)} clips; expected 0 < confidence < 1, clips >= 1"
        )
    clips, shape = len(values), values.shape[1:]
    columns = values.reshape(clips, -1).astype(np.float64)
    drawn = (
        np.random.default_rng(seed)
        .multinomial(clips, np.full(clips, 1 / clips), size=draws)
        .astype(np.float64)
    )
    pieces = [
        _interval(columns[:, start : start + _TOGETHER], drawn, (1 - confidence) / 2)
        for start in range(0, columns.shape[1], _TOGETHER)
    ]
    joined = np.concatenate(pieces, axis=1) if pieces else np.empty((3, 0))
    return Interval(*(row.reshape(shape) for row in joined))


def _interval(
    columns: Float[np.ndarray, "clip k"], drawn: Float[np.ndarray, "draw clip"], tail: float
) -> Float[np.ndarray, "3 k"]:
    present = np.isfinite(columns)
    mean = _average_draws(columns, present, np.ones((1, len(columns))))[0]
    ends = np.full((2, columns.shape[1]), np.nan)
    full = present.all(0) & (len(columns) > 1)
    if full.any():
        means = _average_draws(columns[:, full], present[:, full], drawn)
        ends[:, full] = np.quantile(means, [tail, 1 - tail], axis=0)
    patchy = ~full & (present.sum(0) > 1)
    if patchy.any():
        means = _average_draws(columns[:, patchy], present[:, patchy], drawn)
        ends[:, patchy] = np.nanquantile(means, [tail, 1 - tail], axis=0)
    return np.concatenate([mean[None], ends])


def _average_draws(
    columns: Float[np.ndarray, "clip k"], present: np.ndarray, weights: Float[np.ndarray, "draw clip"]
) -> Float[np.ndarray, "draw k"]:
    """Weighted means of the finite clips, NaN where a draw holds none."""
    total, count = weights @ np.where(present, columns, 0), weights @ present
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
