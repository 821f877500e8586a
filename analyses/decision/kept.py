"""The kept share of the past's benefit under an intervention, and the depth from which on enough is kept.

    context = Context(cut)                                   # the run's cut dataset: own-frame-only is in it
    context.kept_share("velocity", reuse, kind="cross", start=0)   # [draw, layer], row 0 the mean over clips
    summary(rows)                                            # mean, low, high

kept = (E_own - E) / (E_own - E_plain), E_own with cross-frame attention cut in every layer: 1 is the whole
model, 0 a model without a past. Errors are averaged over clips (and equally likely sigmas) first. The
ratio is computed in every draw of these averages, which gives Fieller's interval of a ratio of means.
"""

from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int

from framelens.analyses import averages
from framelens.analyses.intervals import MeanDraws, interval_of
from framelens.analyses.sample import per_film, sample_of
from framelens.analyses.scales import PLAIN, MeasureScale

MEASURES = {"velocity": "velocity_error", "frame": "mse"}
"""The error of each measure: of the velocity at the true frame, and of the generated frame."""
THRESHOLD = 0.9
"""The kept share of the past's benefit that is enough."""
BENEFIT = 0.05
"""The share of the error that the past must remove before kept shares are computed."""


class Value(NamedTuple):
    """A mean over clips and its 95 % interval, NaN where there are too few clips."""

    mean: Any
    low: Any
    high: Any

    @property
    def least(self) -> Any:
        """The lower end of the interval, or the mean where there is none."""
        return np.where(np.isnan(self.low), self.mean, self.low)

    @property
    def most(self) -> Any:
        """The upper end of the interval, or the mean where there is none."""
        return np.where(np.isnan(self.high), self.mean, self.high)


def value_of(stored: xr.Dataset) -> Value:
    """The one value of a dataset of mean, low and high."""
    return Value(*(float(stored[name]) for name in Value._fields))


def summary(rows: Float[np.ndarray, "draw *place"]) -> Value:
    """Row 0 as the mean, and the interval of the other rows."""
    return Value(*interval_of(rows))


def mean_of(values: xr.DataArray, scale: MeasureScale = PLAIN) -> Value:
    """Mean over clips on that scale; no interval where there are too few clips."""
    return value_of(averages.summary(values, scale))


class Resample(MeanDraws):
    """The draws of means over the clips of a run's datasets, or over the films that they are of."""

    def rows(self, values: xr.DataArray) -> Float[np.ndarray, "draw *place"]:
        """Means of `values` [clip, ...], over films where clips share them; row 0 is the mean over all.
        NaN where a clip is NaN.
        """
        return self.average(per_film(values, skipna=False).transpose("clip", ...).values)


class Context(Resample):
    """The benefit of the past: errors of the whole model and of one that sees its own frame only."""

    def __init__(self, cut: xr.Dataset):
        """ValueError where the cut does not begin with layer 0, and so never is own-frame-only."""
        super().__init__(sample_of(cut).count)
        if 0 not in cut.layer:
            raise ValueError(
                f"the cut begins with layer {int(cut.layer.min())}: own-frame-only everywhere is not "
                "measured; probe again without --layers"
            )
        self.own, self.plain = (
            {measure: self.rows(values) for measure, values in errors.items()}
            for errors in (
                {m: error(cut, m, where="from", layer=0) for m in MEASURES},
                {m: error(cut, m, prefix="plain_") for m in MEASURES},
            )
        )

    def benefit(self, measure: str) -> Float[np.ndarray, " draw"]:
        """The share of own-frame-only's error that the past removes."""
        return 1 - self.plain[measure] / self.own[measure]

    def has_benefit(self) -> bool:
        """Whether the past removes more than BENEFIT of both errors: the whole interval, if there is one.

        Otherwise the benefit is too small to compute a kept share.
        """
        value = summary(np.minimum(*(self.benefit(measure) for measure in MEASURES)))
        return bool(value.least > BENEFIT)

    def kept_share(self, measure: str, dataset: xr.Dataset, **where: Any) -> Float[np.ndarray, "draw *place"]:
        """The kept share at that place of a dataset."""
        return self.share(measure, self.rows(error(dataset, measure, **where)))

    def worse(self, dataset: xr.Dataset, **where: Any) -> Float[np.ndarray, "draw *place"]:
        """The smaller kept share of the two measures."""
        return np.minimum(*(self.kept_share(measure, dataset, **where) for measure in MEASURES))

    def share(self, measure: str, rows: Float[np.ndarray, "draw *place"]) -> np.ndarray:
        """The kept share of errors."""
        own, plain = (part[measure].reshape(-1, *[1] * (rows.ndim - 1)) for part in (self.own, self.plain))
        with np.errstate(divide="ignore", invalid="ignore"):
            return (own - rows) / (own - plain)


def error(dataset: xr.Dataset, measure: str, prefix: str = "", **where: Any) -> xr.DataArray:
    """A measure's error of the trained network at a place, averaged over sigma."""
    values = dataset[prefix + MEASURES[measure]]
    where = {dim: label for dim, label in ({"network": "trained"} | where).items() if dim in values.dims}
    values = values.sel(where, drop=True)
    return values.mean("sigma", skipna=False) if "sigma" in values.dims else values


def depth_from(
    kept: Float[np.ndarray, "draw depth"], depths: Int[np.ndarray, " depth"], threshold: float, none: int
) -> Int[np.ndarray, " draw"]:
    """The smallest depth from which on `threshold` is kept at every depth; `none` where there is none."""
    suffices: Bool[np.ndarray, "draw depth"] = kept >= threshold
    onwards = np.logical_and.accumulate(suffices[:, ::-1], axis=1)[:, ::-1]
    return np.where(onwards.any(1), depths[onwards.argmax(1)], none)
