"""The loss when layers or heads do not see earlier frames."""

import pandas as pd
import xarray as xr
from matplotlib.figure import Figure, FigureBase

from framelens.analyses.decision.kept import Context
from framelens.reports.drawing import colours, style
from framelens.reports.drawing.effects import (
    MEASURE_NAMES,
    context_of,
    datasets,
    kept_share,
    layer_ticks,
    networks,
    ratio,
)
from framelens.reports.drawing.tables import spell, tidy
from framelens.reports.runs import Run

needs = ("cut",)
order = 13
title = "Attention to earlier frames cut"
caption = (
    "The frame that is denoised can attend only to itself: in all layers from L on, in layer L only, or "
    "in all layers up to L. Top: velocity error divided by that of the whole network, mean over five "
    "equally likely noise levels; the null makes the same cuts in the network with random weights. "
    "Middle: kept share of the past's benefit, of the velocity and of the generated frame (1: as the "
    "whole model; 0: as with the own frame only in every layer). Bottom: the same share with one head "
    "cut."
)
WHERE = {"from": "From layer L on", "only": "In layer L only", "up_to": "Up to layer L"}
MEASURES = {"velocity": ("#0072B2", "-", "o"), "frame": ("#009E73", "--", "s")}


@style.look
def draw(run: Run) -> tuple[Figure, pd.DataFrame]:
    """Error ratios above kept shares above heads; rows that were not measured are left out."""
    data = datasets(run, *needs, "cut_heads")
    cut, context = data["cut"], context_of(data)
    places = [where for where in WHERE if where in cut["where"].values]
    heights = [2.1] + [2.1] * (context is not None)
    heights += [1.6] * (context is not None and "cut_heads" in data)
    figure = style.canvas(height=0.7 + sum(heights))
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    tables = _ratios(parts[0], cut, places)
    if context is not None:
        tables += _shares(parts[1], context, cut, places)
    if len(heights) > 2:
        tables += _heads(parts[2], context, data["cut_heads"])
    style.heading(figure, title, run, "cut")
    return figure, pd.concat(tables, ignore_index=True)


def _ratios(part: FigureBase, cut: xr.Dataset, places: list[str]) -> list[pd.DataFrame]:
    tables, row = [], part.subplots(1, len(places), sharey=True, squeeze=False)[0]
    for axes, where in zip(row, places, strict=True):
        for network in networks(cut):
            values = ratio(cut, network, where=where)
            style.line(axes, values.layer.values, values, network)
            tables.append(tidy(values, panel="error_ratio", where=where, curve=network))
        style.logarithmic(axes)
        axes.axhline(1, color="0.5", linewidth=0.8, zorder=0)
        axes.set_title(WHERE[where], loc="left")
        layer_ticks(axes, values.layer.values, "layer L")
    row[0].set_ylabel("velocity error /\nwhole network's")
    part.legend(*row[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return tables


def _shares(part: FigureBase, context: Context, cut: xr.Dataset, places: list[str]) -> list[pd.DataFrame]:
    tables, row = [], part.subplots(1, len(places), sharey=True, squeeze=False)[0]
    for axes, where in zip(row, places, strict=True):
        for measure, (colour, dash, marker) in MEASURES.items():
            values = kept_share(context, cut, measure, where=where)
            look = {"color": colour, "linestyle": dash, "marker": marker}
            style.line(axes, values.layer.values, values, measure, MEASURE_NAMES[measure], **look)
            tables.append(tidy(values, panel="kept_share", where=where, curve=measure))
        for at in (0, 1):
            axes.axhline(at, color="0.5", linewidth=0.8, zorder=0)
        layer_ticks(axes, values.layer.values, "layer L")
    row[0].set_ylabel("kept share of the\npast's benefit")
    part.legend(*row[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return tables


def _heads(part: FigureBase, context: Context, cut_heads: xr.Dataset) -> list[pd.DataFrame]:
    maps = {measure: kept_share(context, cut_heads, measure) for measure in MEASURES}
    lowest = min(0.0, *(float(values["mean"].min()) for values in maps.values()))
    tables, panels = [], part.subplots(1, 2)
    for axes, (measure, values) in zip(panels, maps.items(), strict=True):
        mean: xr.DataArray = values["mean"].transpose("head", "layer")
        image = axes.imshow(
            mean,
            cmap=colours.SEQUENTIAL,
            vmin=lowest,
            vmax=1,
            aspect="auto",
            origin="lower",
            interpolation="none",
        )
        stride = -(-mean.sizes["layer"] // 12)
        shown = range(0, mean.sizes["layer"], stride)
        axes.set_xticks(shown, [int(mean.layer[i]) for i in shown])
        axes.set_yticks(range(0, mean.sizes["head"], -(-mean.sizes["head"] // 6)))
        axes.set(xlabel="layer", ylabel="head")
        axes.set_title(f"One head cut: {MEASURE_NAMES[measure]}", loc="left")
        tables.append(tidy(values, panel="one_head", curve=measure))
    part.colorbar(image, ax=panels, label="kept share")
    return tables


def words(table: pd.DataFrame) -> str:
    """The worst layer of each kind of cut, and the most needed head, as sentences."""
    ratios = table[(table["panel"] == "error_ratio") & (table["curve"] == "trained")].dropna(subset=["mean"])
    sentences = []
    for where, rows in ratios.groupby("where", sort=False):
        worst = rows.loc[rows["mean"].idxmax()]
        sentences.append(
            f"{WHERE[str(where)]}, worst at L = {int(worst['layer'])}: {spell(worst, 1)} times the "
            "velocity error of the whole model."
        )
    heads = table[(table["panel"] == "one_head") & (table["curve"] == "velocity")]
    if len(heads):
        worst = heads.loc[heads["mean"].idxmin()]
        place = f"layer {int(worst['layer'])}, head {int(worst['head'])}"
        sentences.append(
            f"The most needed head is {place}: with it cut, {spell(worst)} of the benefit is kept."
        )
    return " ".join(sentences)
