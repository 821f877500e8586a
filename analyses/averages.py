"""Averages and intervals over clips, and the parts of a dataset that are averaged.

summary(off_diagonal(similarity).mean("frame"), COSINE)    # mean, low, high by layer
"""

import numpy as np
import xarray as xr

from framelens.analyses.intervals import enough, mean_interval
from framelens.analyses.sample import per_film
from framelens.analyses.scales import PLAIN, MeasureScale

MODES = ("teacher_forced", "free_running")
"""In order of preference: the first one present is shown and decides."""


def summary(array: xr.DataArray, scale: MeasureScale = PLAIN) -> xr.Dataset:
    """Mean over clips and its 95% interval, on the scale of the measure: variables mean, low, high.

    Clips of one film are averaged first; the mean and the interval are then over films. low and high are NaN
    where there are too few for an interval.
    """
    array = per_film(array).transpose("clip", ...)
    mean, low, high = mean_interval(np.asarray(array.values, dtype=np.float64), scale)
    if not enough(array.sizes["clip"]):
        low, high = np.full_like(mean, np.nan), np.full_like(mean, np.nan)
    shape = array.isel(clip=0, drop=True)
    return xr.Dataset(
        {"mean": shape.copy(data=mean), "low": shape.copy(data=low), "high": shape.copy(data=high)}
    )


def first_mode(stored: xr.Dataset) -> str | None:
    """The first of MODES that the dataset has, None where it has no modes."""
    if "mode" not in stored.coords:
        return None
    present = [str(mode) for mode in stored["mode"].values]
    return next((mode for mode in MODES if mode in present), present[0])


def of_network(stored: xr.Dataset, network: str) -> xr.Dataset:
    """The part of a dataset that is one network's, in the first mode where there are several."""
    place = {"network": network, "mode": first_mode(stored)}
    return stored.sel({dim: label for dim, label in place.items() if dim in stored.dims}, drop=True)


def off_diagonal(array: xr.DataArray) -> xr.DataArray:
    """Mean over all ordered pairs of different steps."""
    different = ~np.eye(array.sizes["step"], array.sizes["step_b"], dtype=bool)
    return array.where(xr.DataArray(different, dims=("step", "step_b"))).mean(("step", "step_b"))


def first_last(array: xr.DataArray) -> xr.DataArray:
    """Similarity of the first and the last step, averaged over which of the two is the reference."""
    return (array.isel(step=0, step_b=-1, drop=True) + array.isel(step=-1, step_b=0, drop=True)) / 2


def noisiest(stored: xr.Dataset) -> xr.Dataset:
    """Noise invariance at the highest noise level, mean over frames, with `sigma` as a coordinate."""
    stored = stored.mean("frame")
    return stored.isel(sigma=int(np.argmax(stored.sigma.values)))


def sees_past(attention: xr.Dataset) -> bool:
    """Whether any frame that was probed has keys of an earlier one."""
    return float(attention["uniform"].where(attention["lag"] >= 1).sum("lag").max()) > 0


def uniform_share(attention: xr.Dataset) -> xr.DataArray:
    """Share of the keys at each lag by frame, for the frames that have a past."""
    uniform = attention["uniform"]
    uniform = uniform.mean([dim for dim in ("clip", "network", "mode") if dim in uniform.dims])
    past = uniform.where(uniform.lag >= 1).sum("lag")
    if float(past.max()) == 0:
        raise ValueError("no probed frame has earlier frames to attend to; probe a later frame")
    return uniform.isel(frame=np.flatnonzero(past.max([dim for dim in past.dims if dim != "frame"]) > 0))


def with_past(array: xr.DataArray, uniform: xr.DataArray) -> xr.DataArray:
    """The same values at those frames only for which `uniform_share` has a past."""
    return array.sel(frame=uniform.frame.values)


def by_head(values: xr.DataArray, uniform: xr.DataArray) -> xr.DataArray:
    """Values by clip, layer and head: mean over steps and over the frames that have a past."""
    return with_past(values, uniform).mean(("frame", "step"))


def by_lag(stored: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    """Mass by clip, layer and lag, and the uniform share by lag, over the frames that have that lag."""
    uniform = uniform_share(stored)
    exists = uniform > 0
    mass = with_past(stored["mass"], uniform).mean(("head", "step")).where(exists).mean("frame")
    return mass, uniform.where(exists).mean("frame")
