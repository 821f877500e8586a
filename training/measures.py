"""Means over clips of scores, with 95 % intervals over clips.

average(errors)                          # [clip, ...] -> ScoreMean(mean, low, high, clips)
average(errors, where=seen_before)       # the mean of the chosen values of all clips together
ratio(energy, true_energy)               # [clip], [clip] -> their sums' ratio
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from framelens.analyses.intervals import enough, mean_interval

DIGITS = 4


class ScoreMean(NamedTuple):
    """A mean, the ends of its interval (None below five clips), and the number of clips with a value."""

    mean: float
    low: float | None
    high: float | None
    clips: int


def average(
    values: Float[np.ndarray, "clip ..."], where: Bool[np.ndarray, "clip ..."] | None = None
) -> ScoreMean:
    """Mean of all values, or of the chosen ones; a clip counts as much as it has of them."""
    chosen = np.ones_like(values, bool) if where is None else where
    sums = np.where(chosen, values, 0).reshape(len(values), -1).sum(axis=1, dtype=np.float64)
    return ratio(sums, chosen.reshape(len(values), -1).sum(axis=1).astype(np.float64))


def ratio(over: Float[np.ndarray, " clip"], under: Float[np.ndarray, " clip"]) -> ScoreMean:
    """Sum over sum, without the clips where `under` is 0, and Student's t interval of its linearisation.

    With equal `under` that is the t interval of a mean. Without any clip the mean is NaN.
    """
    over, under = (values[under > 0].astype(np.float64) for values in (over, under))
    if len(under) == 0:
        return ScoreMean(np.nan, None, None, 0)
    found = over.sum() / under.sum()
    ends = mean_interval(found + (over - found * under) / under.mean()) if enough(len(under)) else None
    low, high = (None, None) if ends is None else (_round(ends.low), _round(ends.high))
    return ScoreMean(_round(found), low, high, len(under))


def _round(value: np.floating | np.ndarray) -> float:
    return round(float(value), DIGITS)
