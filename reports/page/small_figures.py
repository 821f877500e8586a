"""The five figures under the verdict: similarity, sparsity, reuse, cut and leave-one-out, each with its null.

for small in small_figures(run, datasets(run, *INTERVENTIONS), plan): small.title, small.takeaway, small.chart
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from framelens.analyses.averages import by_head, off_diagonal, summary, uniform_share
from framelens.analyses.decision.kept import THRESHOLD, Context
from framelens.analyses.decision.repeated_features import TOKEN_COSINE
from framelens.analyses.depth import Depth, depth_of
from framelens.analyses.scales import scale_of
from framelens.records.plan import Plan
from framelens.reports.drawing.effects import (
    TRAINED,
    context_of,
    has,
    is_shared,
    kept_share,
    kept_share_of_random,
    layer_keys,
    networks,
    ratio,
)
from framelens.reports.drawing.tables import spell
from framelens.reports.page.svg import Chart, Curve
from framelens.reports.runs import Run

KEPT = "kept share of the past's benefit"
NO_BENEFIT = "The benefit of the past is too small to compute a kept share."
INTERVENTIONS = ("reuse", "reuse_controls", "cut", "leave_one_out")
FLOOR = -0.25
"""Lower shares, much worse than without a past, are drawn at the lower edge."""
RANDOM = "random weights"


@dataclass(frozen=True)
class Small:
    """A figure of a few centimetres; without a chart, `takeaway` gives the reason."""

    name: str
    title: str
    question: str
    unit: str
    takeaway: str
    chart: Chart | None = None


def small_figures(run: Run, data: Mapping[str, xr.Dataset], plan: Plan | None = None) -> list[Small]:
    """All five in their order; those that the run did not measure have no chart.

    `data` are the INTERVENTIONS that it did measure.
    """
    split = None if plan is None else plan.split
    where, threshold = (None, THRESHOLD) if split is None else (split.encoder_layers, split.threshold)
    context = context_of(data)
    return [
        _similarity(run, where),
        _sparsity(run, where),
        _reuse(data, context, threshold, where),
        _cut(data, context, threshold, where),
        _leave_one_out(data, where),
    ]


def _similarity(run: Run, where: int | None) -> Small:
    about = (
        "similarity",
        "Similarity",
        "Are features similar at different steps?",
        "token cosine of steps",
    )
    if run.missing(("step_similarity",)):
        return Small(*about, _name_missing("step_similarity"))
    if not run.has("step_similarity", TOKEN_COSINE):
        return Small(*about, _name_missing(f"{TOKEN_COSINE} in step_similarity"))
    values, stored = {}, run.read("step_similarity", TOKEN_COSINE)[TOKEN_COSINE]
    stored = stored.isel(layer=depth_of(stored).blocks)
    for network in networks(stored):
        values[network] = summary(
            off_diagonal(stored.sel(network=network, drop=True)).mean("frame"), scale_of(TOKEN_COSINE)
        )
    takeaway = _compare(values, +1, "More similar than with random weights")
    return Small(*about, takeaway, _chart(values, where, _by_network(values)))


def _sparsity(run: Run, where: int | None) -> Small:
    about = ("sparsity", "Sparsity", "Do layers attend to earlier frames?", "attention to the past (share)")
    if run.missing(("frame_attention",)):
        return Small(*about, _name_missing("frame_attention"))
    values, uniform = {}, xr.DataArray(np.nan)
    stored = run.read("frame_attention", "cross_mass", "uniform")
    for network in networks(stored):
        uniform = uniform_share(stored)
        mass = stored.cross_mass.sel(network=network, drop=True)
        values[network] = summary(by_head(mass, uniform).mean("head"), scale_of("cross_mass"))
    share = uniform.where(uniform.lag >= 1).sum("lag").mean("frame")
    flat = xr.full_like(values[TRAINED], np.nan).fillna({"mean": share})
    takeaway = _compare(values, -1, "Less attention to the past than with random weights")
    curves = [*_by_network(values), Curve("uniform", "level", flat)]
    return Small(*about, takeaway, _chart(values, where, curves))


def _reuse(
    data: Mapping[str, xr.Dataset], context: Context | None, threshold: float, where: int | None
) -> Small:
    about = ("reuse", "Reuse", "Can the past be fetched once, at the first step?", KEPT)
    if "reuse" not in data or context is None or not has(data["reuse"], kind="cross", start=0):
        if context is None and is_shared(data):
            return Small(*about, NO_BENEFIT)
        return Small(
            *about, _name_missing("reuse from the first step" if "reuse" in data else "reuse", "cut")
        )
    own = kept_share(context, data["reuse"], kind="cross", start=0)
    curves = [Curve("own past, once", "trained", own)]
    if has(data["reuse"], kind="cross_only"):
        only = kept_share(context, data["reuse"], kind="cross_only", start=0)
        curves.append(Curve("the same, none above", "second", only))
    takeaway = f"Fetched once in layers 0 to {int(own.layer[-1])}: {spell(own.isel(layer=-1))} kept"
    if "reuse_controls" in data and has(data["reuse_controls"], source="other_clip", kind="cross"):
        other = kept_share(context, data["reuse_controls"], source="other_clip", kind="cross")
        curves.append(Curve("another clip's past", "null", other))
        takeaway += f"; of another clip's past: {spell(other.isel(layer=-1))}"
    chart = _chart({TRAINED: own}, where, curves, threshold=threshold, floor=FLOOR)
    return Small(*about, f"{takeaway}.", chart)


def _cut(
    data: Mapping[str, xr.Dataset], context: Context | None, threshold: float, where: int | None
) -> Small:
    about = ("cut", "Cut", "From which layer on is the past not needed?", KEPT)
    if "cut" not in data:
        return Small(*about, _name_missing("cut"))
    if context is None and is_shared(data):
        return Small(*about, NO_BENEFIT)
    if context is None:
        return Small(*about, "Not known: the run did not cut all layers, from layer 0 on.")
    live = kept_share(context, data["cut"], where="from")
    frame = kept_share(context, data["cut"], "frame", where="from")
    curves = [Curve("velocity", "trained", live), Curve("generated frame", "second", frame)]
    if "random" in networks(data["cut"]):
        curves.append(Curve(RANDOM, "null", kept_share_of_random(context, data["cut"])))
    enough = np.minimum(live["mean"], frame["mean"]).values >= threshold
    onwards = np.logical_and.accumulate(enough[::-1])[::-1]
    if onwards.any():
        first = int(onwards.argmax())
        takeaway = f"Cut from layer {int(live.layer[first])} on: {_worse(live, frame, first)} kept"
        if first:
            takeaway += f"; from layer {int(live.layer[first - 1])} on: {_worse(live, frame, first - 1)}"
    else:
        takeaway = f"Cut in layer {int(live.layer[-1])} alone: {_worse(live, frame, -1)} kept"
    chart = _chart({TRAINED: live}, where, curves, threshold=threshold, floor=FLOOR)
    return Small(*about, f"{takeaway}.", chart)


def _worse(velocity: xr.Dataset, frame: xr.Dataset, place: int) -> str:
    """The smaller of the two kept shares, with its interval."""
    both = [values.isel(layer=place) for values in (velocity, frame)]
    return spell(min(both, key=lambda value: float(value["mean"])))


def _leave_one_out(data: Mapping[str, xr.Dataset], where: int | None) -> Small:
    about = ("leave-one-out", "Leave one out", "Which layers are not needed?", "error / whole network's")
    if "leave_one_out" not in data:
        return Small(*about, _name_missing("leave_one_out"))
    stored = data["leave_one_out"]
    values = {network: ratio(stored, network) for network in networks(stored)}
    trained = values[TRAINED]
    most, least = (int(choose(trained["mean"].values)) for choose in (np.nanargmax, np.nanargmin))
    takeaway = (
        f"Most needed: layer {int(trained.layer[most])}, {spell(trained.isel(layer=most), 1)} times the "
        f"error without it; least needed: layer {int(trained.layer[least])}, "
        f"{spell(trained.isel(layer=least), 1)} times."
    )
    return Small(*about, takeaway, _chart(values, where, _by_network(values), is_log=True))


def _chart(values: Mapping[str, xr.Dataset], where: int | None, curves: list[Curve], **options: Any) -> Chart:
    """`where` is the encoder's number of layers."""
    depth = depth_of(values[TRAINED])
    is_grouped = len(set(depth.groups)) > 1
    names = [depth.short(place) if is_grouped else depth.label(place) for place in depth.positions]
    split = None if where is None or is_grouped else _edge(depth, where)
    keys = layer_keys(values[TRAINED])
    return Chart(names, keys, [curve for curve in curves if _any(curve)], split=split, **options)


def _edge(depth: Depth, encoder_layers: int) -> float:
    """Where on the axis the encoder ends: halfway between its last measured layer and the next."""
    return sum(layer < encoder_layers for layer in depth.layers) - 0.5


def _any(curve: Curve) -> bool:
    return bool(curve.values["mean"].notnull().any())


def _by_network(values: Mapping[str, xr.Dataset]) -> list[Curve]:
    looks = {TRAINED: (TRAINED, TRAINED), "random": (RANDOM, "null")}
    return [Curve(*looks.get(name, (name, "second")), value) for name, value in values.items()]


def _compare(values: Mapping[str, xr.Dataset], sign: int, text: str) -> str:
    """In how many layers the trained network is above (sign 1) or below (-1) random weights, as text."""
    trained, null = values[TRAINED], values.get("random")
    if null is None:
        low, high = float(trained["mean"].min()), float(trained["mean"].max())
        return f"Between {low:.2f} and {high:.2f}; no null was measured."
    ends = [_end(trained, "low" if sign > 0 else "high"), _end(null, "high" if sign > 0 else "low")]
    count = int((sign * (ends[0].values - ends[1].values) > 0).sum())
    means = (f"{float(value['mean'].mean()):.2f}" for value in (trained, null))
    return f"{text} in {count} of {trained.sizes['layer']} layers (mean {' against '.join(means)})."


def _end(value: xr.Dataset, name: str) -> xr.DataArray:
    """That end of the interval, the mean where there is none."""
    return value[name].where(value[name].notnull(), value["mean"])


def _name_missing(*datasets: str) -> str:
    return f"Not measured in this run: it needs {' and '.join(datasets)}."
