"""Means over clips with 95 % intervals.

mean, low, high = mean_interval(cosine, COSINE)       # [clip, ...] -> three arrays [...]
rows = MeanDraws(clips=8).rows(errors)                # joint draws of means, for ratios of means
enough(clips=3)                                       # False: an interval would be too wide to be useful
spell_interval(0.83, 0.80, 0.86)                      # "0.83 [0.80, 0.86]"

A mean has Student's t interval on the scale of its measure (analyses/scales.py). A ratio of means has
Fieller's interval: the draws of all means of a run are jointly multivariate t, so that the ratio of two draws
is below r as often as the t test of mean(a - r b) says. Fieller's method needs only that a - r b is nearly
symmetric over clips. That holds for skewed errors too, since what the errors of one clip have in common
cancels.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import chdtri, stdtrit

from framelens.analyses.sample import Sample
from framelens.analyses.scales import PLAIN, MeasureScale

ENOUGH = 5
MORE_DIGITS = 2
DRAWS, SEED = 2000, 0
"""Pairs of draws of the means of a run: each draw has its mirror image."""
METHOD = (
    "Bands and brackets are 95 % intervals over {count}: Student's t on a scale on which the measure "
    "is nearly symmetric (log for errors, a folded root for shares and cosines), and Fieller's method for "
    "ratios of means."
)


class Interval(NamedTuple):
    """A mean over clips and the ends of its interval."""

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def enough(clips: int) -> bool:
    """Whether an interval over this many clips, or films, is worth drawing: five or more."""
    return clips >= ENOUGH


def describe_intervals(sample: Sample) -> str:
    """The number of clips, or of films and clips, and the method of the intervals, as sentences."""
    if not enough(sample.count):
        return f"{sample.describe()}: too few for an interval."
    over = f"{sample.units} (clips of one film are averaged first)" if sample.films > 1 else sample.units
    return METHOD.format(count=over)


def mean_interval(
    values: Float[np.ndarray, "clip ..."], scale: MeasureScale = PLAIN, confidence: float = 0.95
) -> Interval:
    """Mean over the first axis and Student's t interval of that mean, both taken on the scale.

    NaN is a missing clip and is left out. Below two finite clips low and high are NaN, since one clip shows
    no spread. Values at the edge of the range of SHARE and COSINE count like any other. Where a LOG measure
    has a clip of exactly 0, the mean is the plain one and the interval is cut off at 0. ValueError for values
    outside the range.
    """
    if not 0 < confidence < 1 or len(values) == 0:
        raise ValueError(
            f"got confidence {confidence}, {len(values)} clips; expected 0 < confidence < 1, clips >= 1"
        )
    values = scale.limit(np.where(np.isfinite(values), values, np.nan).astype(np.float64))
    found = np.stack(_student(scale.apply(values), confidence))
    ends = scale.invert(found)
    is_edge = np.isinf(scale.apply(values)).any(0)
    if is_edge.any():
        plain = np.clip(np.stack(_student(values, confidence)), scale.least, scale.greatest)
        ends = np.where(is_edge, plain, ends)
    return Interval(*ends)


def _student(values: Float[np.ndarray, "clip ..."], confidence: float) -> Interval:
    """Mean and t interval of the finite values, on the scale that they are on."""
    present = ~np.isnan(values)
    count = present.sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.where(present, values, 0).sum(0) / count
        squares = np.where(present, values - mean, 0) ** 2
        error = np.sqrt(squares.sum(0) / (count - 1) / count)
        half = stdtrit(np.maximum(count - 1, 1), (1 + confidence) / 2) * np.where(count > 1, error, np.nan)
    return Interval(mean, mean - half, mean + half)


class MeanDraws:
    """Means over clips, and draws of them: the same draws for every value of a run.

    A draw is the weighted mean of the clips with weights 1/n + z / sqrt(n (n - 1)) · sqrt((n - 1) / χ²), z
    standard normal without its mean and χ² with n - 1 degrees of freedom. The draws of one mean are then
    mean + s / sqrt(n) · t(n - 1), and those of several means are correlated as the clips are.
    """

    def __init__(self, clips: int):
        self.clips = clips
        whole = np.full((1, clips), 1 / clips)
        self.weights = np.concatenate([whole, *_draw_weights(clips)]) if enough(clips) else whole

    def average(self, values: Float[np.ndarray, "clip *place"]) -> Float[np.ndarray, "draw *place"]:
        """Means of the values; row 0 is the mean over the clips, NaN where a clip is NaN."""
        array = np.asarray(values, np.float64)
        if len(array) != self.clips:
            raise ValueError(f"datasets of one run differ: {len(array)} clips, expected {self.clips}")
        return np.tensordot(self.weights, array, axes=1)


def _draw_weights(clips: int) -> tuple[np.ndarray, np.ndarray]:
    """The weights of the draws, and of their mirror images about the mean."""
    rng = np.random.default_rng(SEED)
    z = rng.normal(size=(DRAWS, clips))
    z -= z.mean(1, keepdims=True)
    # χ² in equal steps of probability: fewer draws then give the tails.
    chi = chdtri(clips - 1, (rng.permutation(DRAWS) + 0.5) / DRAWS)
    apart = z / np.sqrt(clips * chi)[:, None]
    return 1 / clips + apart, 1 / clips - apart


def interval_of(rows: Float[np.ndarray, "draw *place"], confidence: float = 0.95) -> Interval:
    """Row 0 as the mean, and the interval of the other rows; NaN where there are none."""
    if len(rows) == 1:
        nothing = np.full_like(rows[0], np.nan, dtype=np.float64)
        return Interval(rows[0], nothing, nothing)
    low, high = np.quantile(rows[1:], [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return Interval(rows[0], low, high)


def spell_interval(
    mean: float, low: float | None, high: float | None, digits: int = 2, unit: str = ""
) -> str:
    """`0.83 [0.80, 0.86]`; `0.83` alone where the ends are NaN or None.

    Where both ends round to the text of the mean, up to MORE_DIGITS more digits are written. An interval
    that has no width even then is written as `6 ± 0`.
    """
    if low is None or high is None or np.isnan(low) or np.isnan(high):
        return f"{mean:z.{digits}f}{unit}"
    for more in range(MORE_DIGITS + 1):
        value, start, end = (f"{part:z.{digits + more}f}" for part in (mean, low, high))
        if not value == start == end:
            return f"{value}{unit} [{start}, {end}]"
    return f"{mean:z.{digits}f} ± 0{unit}"
