"""Averages and intervals over clips: all that a figure may compute.

summary(off_diagonal(similarity).mean("frame"))    # mean, low, high by layer
"""

import numpy as np
import pandas as pd
import xarray as xr

from framelens.analyses.intervals import bootstrap, enough

CONFIDENCE = 0.95
DRAWS = 2000
SEED = 0


def summary(array: xr.DataArray) -> xr.Dataset:
    """Mean over clips and its 95% bootstrap interval: variables mean, low, high.

    low and high are NaN where there are too few clips for an interval.
    """
    array = array.transpose("clip", ...)
    values = np.asarray(array.values, dtype=np.float64)
    mean, low, high = bootstrap(values, CONFIDENCE, DRAWS, SEED)
    if not enough(len(values)):
        low, high = np.full_like(mean, np.nan), np.full_like(mean, np.nan)
    shape = array.isel(clip=0, drop=True)
    return xr.Dataset(
        {"mean": shape.copy(data=mean), "low": shape.copy(data=low), "high": shape.copy(data=high)}
    )


def off_diagonal(array: xr.DataArray) -> xr.DataArray:
    """Mean over all ordered pairs of different steps."""
    different = ~np.eye(array.sizes["step"], array.sizes["step_b"], dtype=bool)
    return array.where(xr.DataArray(different, dims=("step", "step_b"))).mean(("step", "step_b"))


def first_last(array: xr.DataArray) -> xr.DataArray:
    """Similarity of the first and the last step, averaged over which of the two is the reference."""
    return (array.isel(step=0, step_b=-1, drop=True) + array.isel(step=-1, step_b=0, drop=True)) / 2


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


def tidy(values: xr.Dataset, **labels: str) -> pd.DataFrame:
    """Values as one row per place, with the same labels in front of every row."""
    table = values.to_dataframe().reset_index()
    for column, label in reversed(labels.items()):
        table.insert(0, column, label)
    return table


def spelled(row: pd.Series | xr.Dataset, digits: int = 2) -> str:
    """`0.83 [0.80, 0.86]`, or `0.83` where there is no interval."""
    mean, low, high = (float(row[name]) for name in ("mean", "low", "high"))
    interval = "" if np.isnan(low) else f" [{low:z.{digits}f}, {high:z.{digits}f}]"
    return f"{mean:z.{digits}f}{interval}"
