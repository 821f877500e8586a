"""How much of what the past gives is kept under an intervention, and from which depth on enough is.

    context = Context(cut)                                   # the run's cut dataset: own-frame-only is in it
    context.kept_share("velocity", reuse, kind="cross", start=0)   # [draw, layer], row 0 the mean over clips
    summary(rows)                                            # mean, low, high

kept = (E_own - E) / (E_own - E_plain), E_own with cross-frame attention cut in every layer: 1 is the whole
model, 0 a model without a past. Errors are averaged over clips (and equally likely sigmas) first, and the
ratio is computed in every resample, so that its interval is that of a ratio of means.
"""

from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int

from framelens.analyses.intervals import enough

MEASURES = {"velocity": "velocity_error", "frame": "mse"}
"""The error of each measure: of the velocity at the true frame, and of the frame that is drawn."""
DRAWS, SEED, TAIL = 1000, 0, 0.025
THRESHOLD = 0.9
"""The kept share of the past's benefit that is enough."""
BENEFIT = 0.05
"""The least share of the error that the past has to take away for a share of that to mean something."""


class Value(NamedTuple):
    """A mean over clips and its 95 % interval, NaN where there are too few clips."""

    mean: Any
    low: Any
    high: Any


def value_of(stored: xr.Dataset) -> Value:
    """The one value of a dataset of mean, low and high."""
    return Value(*(float(stored[name]) for name in Value._fields))


def summary(rows: Float[np.ndarray, "draw *place"]) -> Value:
    """Row 0 as the mean, and the interval of the other rows."""
    if len(rows) == 1:
        nothing = np.full_like(rows[0], np.nan)
        return Value(rows[0], nothing, nothing)
    low, high = np.quantile(rows[1:], [TAIL, 1 - TAIL], axis=0)
    return Value(rows[0], low, high)


class Resample:
    """Means over clips, then over clips drawn with replacement: the same draws for everything in a run."""

    def __init__(self, clips: int):
        self.clips = clips
        rng = np.random.default_rng(SEED)
        drawn = rng.multinomial(clips, np.full(clips, 1 / clips), size=DRAWS if enough(clips) else 0)
        self.weights = np.concatenate([np.ones((1, clips)), drawn]) / clips

    def rows(self, values: xr.DataArray) -> Float[np.ndarray, "draw *place"]:
        """Means of `values` [clip, ...]; row 0 over all clips, NaN where a clip is NaN."""
        array = np.asarray(values.transpose("clip", ...).values, np.float64)
        if len(array) != self.clips:
            raise ValueError(f"datasets of one run differ: {len(array)} clips, expected {self.clips}")
        return np.tensordot(self.weights, array, axes=1)


class Context(Resample):
    """What the past gives: errors of the whole model and of one that sees its own frame only."""

    def __init__(self, cut: xr.Dataset):
        """ValueError where the cut does not begin with layer 0, and so never is own-frame-only."""
        super().__init__(cut.sizes["clip"])
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
        """The share of own-frame-only's error that the past takes away."""
        return 1 - self.plain[measure] / self.own[measure]

    def has_benefit(self) -> bool:
        """Whether the past takes away more than BENEFIT of both errors: the whole interval, if there is one.

        Otherwise the benefit is too small to compute a kept share.
        """
        value = summary(np.minimum(*(self.benefit(measure) for measure in MEASURES)))
        return bool((value.mean if np.isnan(value.low) else value.low) > BENEFIT)

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
