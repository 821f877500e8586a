"""How far two sets of clips differ in a measure, with 95 % intervals.

mean, low, high = mean_difference(first, second, PLAIN, is_paired=True)    # [clip, ...] twice -> three arrays
"""

import numpy as np
from jaxtyping import Float
from scipy import stats

from framelens.analyses.intervals import Interval, enough, mean_interval
from framelens.analyses.scales import LOG, PLAIN, MeasureScale


def mean_difference(
    first: Float[np.ndarray, "clip ..."],
    second: Float[np.ndarray, "other ..."],
    scale: MeasureScale = PLAIN,
    is_paired: bool = False,
) -> Interval:
    """Mean over clips of second minus first; for a measure on the scale LOG the ratio of geometric means.

    Where the clips are the same, in the same order, the differences clip by clip have Student's t interval;
    else Welch's interval for two samples of unequal variance holds. Differences of measures within a range
    are nearly symmetric, so that they need no scale. A value that is not finite is a missing clip. Without
    enough clips low and high are NaN. ValueError for paired values of different clips.
    """
    if is_paired and len(first) != len(second):
        raise ValueError(f"paired values have as many clips each, got {len(first)} and {len(second)}")
    first, second = (np.asarray(values, np.float64) for values in (first, second))
    if scale is LOG:
        ratio = mean_difference(np.log(first), np.log(second), PLAIN, is_paired)
        return Interval(*map(np.exp, ratio))
    first, second = (np.where(np.isfinite(values), values, np.nan) for values in (first, second))
    if is_paired:
        found = mean_interval(second - first)
    else:
        test = stats.ttest_ind(second, first, axis=0, equal_var=False, nan_policy="omit")
        ends = test.confidence_interval(0.95)
        found = Interval(np.nanmean(second, axis=0) - np.nanmean(first, axis=0), ends.low, ends.high)
    if enough(min(len(first), len(second))):
        return found
    return Interval(found.mean, np.full_like(found.mean, np.nan), np.full_like(found.mean, np.nan))
