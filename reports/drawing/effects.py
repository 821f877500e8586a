"""Interventions as the figures show them: means over clips, error ratios, shares of the past's benefit.

    data = datasets(run, "cut", "reuse", "leave_one_out")          # those that the run has
    kept(context_of(data), data["cut"], where="from")    # mean, low, high by layer: 1 whole model, 0 no past
    ratio(data["leave_one_out"], network="random")       # velocity error over that of the whole network
    absolute(data["reuse"], "mse", kind="hard", start=0)

A share or ratio is that of means over clips (and sigmas), and so is its interval.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from framelens.analyses.averages import summary as mean_over_clips
from framelens.analyses.decision.kept import Context, Resample, Value, error, summary
from framelens.analyses.depth import depth_of
from framelens.analyses.sample import sample_of
from framelens.analyses.scales import scale_of
from framelens.reports.runs import Run

TRAINED = "trained"
MEASURE_NAMES = {"velocity": "velocity", "frame": "generated frame"}
REUSED = {
    "hard": "whole residual stream",
    "delta": "summed update of the layers",
    "cross": "attention to the past",
    "cross_only": "attention to the past, none above",
}
"""What each kind of reuse takes from the earlier step."""


def datasets(run: Run, *names: str) -> dict[str, xr.Dataset]:
    """Those of the named datasets that the run has, each read once."""
    return {name: run.read(name) for name in names if not run.missing((name,))}


def absolute(stored: xr.Dataset, variable: str, **where: Any) -> xr.Dataset:
    """Mean over clips of a variable at a place, and its interval."""
    return mean_over_clips(_at(stored[variable], where), scale_of(variable.removeprefix("plain_")))


def plain(stored: xr.Dataset, variable: str) -> xr.Dataset:
    """Mean over clips of the variable in the model without intervention, and its interval."""
    return absolute(stored, f"plain_{variable}")


def kept_share(context: Context, stored: xr.Dataset, measure: str = "velocity", **where: Any) -> xr.Dataset:
    """The part of the past's benefit that remains: 1 as in the whole model, 0 as without a past."""
    values = error(stored, measure, **where)
    return interval(values, context.share(measure, context.rows(values)))


def kept_share_of_random(context: Context, cut: xr.Dataset, where: str = "from") -> xr.Dataset:
    """How much the past reduces the error of random weights, over how much it reduces the trained network's.

    Both reductions are relative to the error with the own frame only. A network that does not use its past
    has 0.
    """
    values = error(cut, "velocity", network="random", where=where)
    rows = context.rows(values)
    own = context.rows(error(cut, "velocity", network="random", where="from", layer=0))
    own, benefit = (part.reshape(-1, *[1] * (rows.ndim - 1)) for part in (own, context.benefit("velocity")))
    return interval(values, (own - rows) / own / benefit)


def ratio(stored: xr.Dataset, network: str = TRAINED, by_sigma: bool = False, **where: Any) -> xr.Dataset:
    """Velocity error under an intervention over that of the whole network: 1 changes nothing."""
    changed, whole = (
        _at(stored[name], {"network": network} | where) for name in ("velocity_error", "plain_velocity_error")
    )
    if not by_sigma:
        changed, whole = changed.mean("sigma", skipna=False), whole.mean("sigma", skipna=False)
    return _ratio(changed, whole)


def frame_ratio(stored: xr.Dataset, **where: Any) -> xr.Dataset:
    """Squared error of the generated frame under an intervention over that of the whole network."""
    return _ratio(_at(stored.mse, where), stored.plain_mse)


def _ratio(changed: xr.DataArray, whole: xr.DataArray) -> xr.Dataset:
    """The ratio of means over clips, resampled together: what clips have in common cancels."""
    resample = Resample(sample_of(changed).count)
    rows, base = resample.rows(changed), resample.rows(whole)
    # Where sigma is kept, it is the last axis of both.
    base = base.reshape(len(base), *[1] * (rows.ndim - base.ndim), *base.shape[1:])
    return interval(changed, rows / base)


def context_of(data: Mapping[str, xr.Dataset]) -> Context | None:
    """The past's benefit, by clip; None where it is not clear, or where own-frame-only was not measured."""
    if not is_shared(data):
        return None
    context = Context(data["cut"])
    return context if context.has_benefit() else None


def is_shared(data: Mapping[str, xr.Dataset]) -> bool:
    """Whether own-frame-only everywhere was measured."""
    return "cut" in data and has(data["cut"], where="from", layer=0)


def has(stored: xr.Dataset, **where: Any) -> bool:
    """Whether the dataset has these labels."""
    return all(dim in stored.coords and label in stored[dim].values for dim, label in where.items())


def interval(template: xr.DataArray, rows: np.ndarray) -> xr.Dataset:
    """Mean, low and high of resamples [draw, ...], on the axes of `template` except `clip`."""
    shape = template.transpose("clip", ...).isel(clip=0, drop=True)
    value: Value = summary(rows)
    return xr.Dataset({name: shape.copy(data=np.asarray(part)) for name, part in value._asdict().items()})


def networks(stored: xr.Dataset | xr.DataArray) -> list[str]:
    """The networks measured, the trained one first."""
    return sorted(map(str, stored.network.values), key=lambda name: (name != TRAINED, name))


def layer_keys(stored: xr.Dataset | xr.DataArray) -> list[str]:
    """The name of each layer in a link: `3`, `embed`, `decoder-3`."""
    depth = depth_of(stored)
    names = ["embed" if layer < 0 else str(layer) for layer in depth.layers]
    return [f"{group}-{name}" if group else name for group, name in zip(depth.groups, names, strict=True)]


def is_empty(values: xr.Dataset) -> bool:
    """Whether there is nothing to draw."""
    return not bool(values["mean"].notnull().any())


def layer_ticks(axes: Axes, layers: np.ndarray, label: str = "layer", most: int = 9) -> None:
    """Puts ticks at measured layers only, few enough to read."""
    stride = -(-len(layers) // most)
    shown = [int(layer) for layer in layers][::stride]
    axes.set_xticks(shown, [str(layer) for layer in shown])
    axes.set_xlim(float(layers.min()) - 0.4, float(layers.max()) + 0.4)
    axes.set_xlabel(label)


def level(axes: Axes, value: xr.Dataset, label: str | None = "whole model") -> None:
    """Draws the model without intervention as a level with its band."""
    axes.axhline(
        float(value["mean"]), color="black", linestyle=(0, (4, 2)), linewidth=1, label=label, zorder=1
    )
    if np.isfinite(float(value["low"])):
        axes.axhspan(float(value["low"]), float(value["high"]), color="black", alpha=0.1, linewidth=0)


def _at(values: xr.DataArray, where: dict[str, Any]) -> xr.DataArray:
    return values.sel({dim: label for dim, label in where.items() if dim in values.dims}, drop=True)
