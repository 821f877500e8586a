"""The loss of the frame when all later steps reuse features of one step, by depth and by step."""

from collections.abc import Callable, Mapping

import pandas as pd
import xarray as xr
from matplotlib.artist import Artist
from matplotlib.figure import Figure, FigureBase
from matplotlib.lines import Line2D

from framelens.reports.drawing import colours, style
from framelens.reports.drawing.effects import (
    REUSED,
    absolute,
    datasets,
    frame_ratio,
    has,
    is_empty,
    layer_ticks,
    level,
    plain,
)
from framelens.reports.drawing.tables import spell, tidy
from framelens.reports.runs import Run

needs = ("reuse",)
order = 12
title = "Features of one step reused at all later steps"
caption = (
    "Mean squared error of the generated frame (mean of two noise draws) when every later step reuses "
    "what layers 0 to L computed at one step. Top: computed once, at the first step; controls: the same "
    "from another clip's past, and nothing instead. Middle: computed at a later step, or again every few "
    "steps, as a ratio to the whole model's error, in which what clips have in common cancels (1: nothing "
    "changes). Bottom: gradient energy relative to the truth (below 1 is blurred; squared error alone "
    "rewards blur) and the difference between the frames of two noise draws. The dashed level is the "
    "whole model. Attention to the past: only its cross-frame part is reused; all else runs at every "
    "step."
)
COLOURS = {"hard": "#D55E00", "delta": "#E69F00", "cross": "#0072B2", "cross_only": "#009E73"}
MARKERS = {"hard": "s", "delta": "^", "cross": "o", "cross_only": "D"}
SOURCES = {
    "other_clip": ("another clip's instead", "#7A7A7A", ":"),
    "none": ("none instead", "#CC79A7", "-."),
}
SHORT = {
    "hard": "Whole residual stream", "delta": "Layers' summed update",
    "cross": "Attention to the past", "cross_only": "Same, none above L",
}  # fmt: skip
LABELS = {
    "mse": "mean squared error\nof the generated frame",
    "ratio": "the same error /\nthe whole model's",
}
BESIDE = {"sharpness": "Sharpness", "diversity": "Diversity over noise draws"}


@style.look
def draw(run: Run) -> tuple[Figure, pd.DataFrame]:
    """Error by kind with controls, by start, and sharpness and diversity; bands are intervals over clips."""
    data = datasets(run, "reuse", "reuse_controls", "reuse_refresh")
    stored = data["reuse"]
    first = int(stored.start[0])
    kinds = [kind for kind in map(str, stored.kind.values) if stored.mse.sel(kind=kind).notnull().any()]
    layers = stored.layer.values
    later = stored.sizes["start"] > 1 or "reuse_refresh" in data
    figure = style.canvas(height=6.9 if later else 4.9)
    *rows, last = figure.subfigures(3 if later else 2, 1)
    tables, named = _row(rows[0], data, kinds, "mse", _controls)
    for axes, kind in zip(rows[0].axes, kinds, strict=True):
        key = Line2D([], [], color=COLOURS[kind], marker=MARKERS[kind], markersize=4)
        axes.set_title(" ")  # the room that the key takes
        key = axes.legend([key], [SHORT[kind]], loc="lower left", bbox_to_anchor=(-0.1, 0.97))
        key.set_in_layout(False)
    if later:
        more, others = _row(rows[1], data, kinds, "ratio", _starts)
        tables, named = tables + more, named | others
    rows[-1].legend(named.values(), named.keys(), loc="outside lower center", ncols=8, fontsize=7)
    for axes, (measure, name) in zip(last.subplots(1, 2), BESIDE.items(), strict=True):
        for kind in kinds:
            values = absolute(stored, measure, kind=kind, start=first)
            look = {"color": COLOURS[kind], "marker": MARKERS[kind], "linestyle": "-"}
            style.line(axes, layers, values, kind, REUSED[kind], **look)
            tables.append(tidy(values, panel=measure, kind=kind, curve=f"from step {first}"))
        level(axes, plain(stored, measure))
        axes.set_title(f"{name}, from step {first}, of each kind", loc="left")
        layer_ticks(axes, layers, "last reused layer L")
    style.logarithmic(axes)
    axes.set_ylabel("mean squared difference")
    last.axes[0].set_ylabel("gradient energy / truth's")
    style.heading(figure, title, run, "reuse")
    return figure, pd.concat(tables, ignore_index=True)


def _row(
    part: FigureBase, data: Mapping[str, xr.Dataset], kinds: list[str], panel: str, curves: Callable
) -> tuple[list[pd.DataFrame], dict[str, Artist]]:
    """One panel per kind on a shared logarithmic scale; returns what was drawn, and a line of each kind."""
    tables, named, layers = [], {}, data["reuse"].layer.values
    panels = part.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    for axes, kind in zip(panels, kinds, strict=True):
        drawn = [(label, values, look) for label, values, look in curves(data, kind) if not is_empty(values)]
        for label, values, look in drawn:
            style.line(axes, layers, values, kind, label, **look)
            tables.append(tidy(values, panel=panel, kind=kind, curve=label))
        if panel == "mse":
            level(axes, plain(data["reuse"], "mse"))
        else:
            axes.axhline(1, color="black", linestyle=(0, (4, 2)), linewidth=1, label="whole model", zorder=1)
        style.logarithmic(axes)
        layer_ticks(axes, layers, "last reused layer L", most=6)
        named |= dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))
    panels[0].set_ylabel(LABELS[panel])
    return tables, named


def _controls(data: Mapping[str, xr.Dataset], kind: str) -> list[tuple[str, xr.Dataset, dict]]:
    """From the first measured step on, and the controls of the same kind."""
    first = int(data["reuse"].start[0])
    own = absolute(data["reuse"], "mse", kind=kind, start=first)
    shade = colours.sigma_shades([float(data["reuse"].start_sigma[0])])[0]
    curves = [(f"from step {first}", own, {"color": shade})]
    for source, (label, colour, dash) in SOURCES.items():
        if first == 0 and "reuse_controls" in data and has(data["reuse_controls"], source=source, kind=kind):
            values = absolute(data["reuse_controls"], "mse", source=source, kind=kind)
            curves.append((label, values, {"color": colour, "linestyle": dash, "marker": "."}))
    return curves


def _starts(data: Mapping[str, xr.Dataset], kind: str) -> list[tuple[str, xr.Dataset, dict]]:
    """By the step at which the features are computed, and with features refreshed every few steps."""
    starts = data["reuse"].start.values
    curves = [
        (f"from step {start}", frame_ratio(data["reuse"], kind=kind, start=start), {"color": shade})
        for start, shade in zip(starts, colours.sigma_shades(data["reuse"].start_sigma.values), strict=True)
    ]
    if "reuse_refresh" in data and has(data["reuse_refresh"], kind=kind):
        for every, colour in zip(data["reuse_refresh"].refresh.values, ("#CC79A7", "#E69F00"), strict=False):
            values = frame_ratio(data["reuse_refresh"], kind=kind, refresh=every)
            curves.append(
                (f"every {every} steps", values, {"color": colour, "linestyle": "--", "marker": "x"})
            )
    return curves


def words(table: pd.DataFrame) -> str:
    """For each kind the deepest reuse that was measured, beside its controls, as sentences."""
    errors = table[table["panel"] == "mse"].dropna(subset=["mean"])
    first = errors["curve"].iloc[0]
    sentences = []
    for kind, rows in errors.groupby("kind", sort=False):
        deepest = rows[rows["layer"] == rows["layer"].max()].drop_duplicates("curve")
        named = {row["curve"]: spell(row, 3) for _, row in deepest.iterrows()}
        controls = [f"{text} with {name}" for name, text in named.items() if name.endswith(" instead")]
        beside = f"; {', '.join(controls)}" if controls else ""
        sentences.append(
            f"{REUSED[str(kind)].capitalize()}, reused to layer {int(rows['layer'].max())} {first}: error "
            f"{named.get(first, 'not measured')}{beside}."
        )
    return " ".join(sentences)
