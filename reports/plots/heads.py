"""Attention to earlier frames, head by head and layer by layer."""

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from framelens.analyses.averages import by_head, uniform_share
from framelens.analyses.depth import depth_of
from framelens.analyses.sample import per_film
from framelens.reports.drawing import colours, style
from framelens.reports.drawing.layers import mark, place
from framelens.reports.drawing.tables import tidy
from framelens.reports.runs import Run

needs = ("frame_attention",)
order = 6
title = "Attention to earlier frames by head"
caption = (
    "Share of attention on keys of earlier frames for every head, mean over clips, queries, steps and "
    "frames with a past. Right: the trained network minus the same network with random weights."
)


@style.look
def draw(run: Run) -> tuple[Figure, pd.DataFrame]:
    """Head-by-layer maps: trained, and trained minus random where a random network was run."""
    maps = {}
    for network in run.networks("frame_attention"):
        stored = run.read("frame_attention", "cross_mass", "uniform", network=network)
        mass = by_head(stored.cross_mass, uniform_share(stored))
        maps[network] = per_film(mass).mean("clip").transpose("head", "layer")
    shown = {"trained": (maps["trained"], colours.SEQUENTIAL, 0, 1, "mass on earlier frames (share)")}
    if "random" in maps:
        change = maps["trained"] - maps["random"].values
        reach = float(np.abs(change).max()) or 1.0
        difference = (change, colours.DIVERGING, -reach, reach, "difference in mass")
        shown["trained minus random weights"] = difference

    height = 1.6 + 0.16 * min(max(maps["trained"].sizes["head"], 6), 24)
    figure = style.canvas(height=height)
    panels = figure.subplots(1, len(shown), squeeze=False)[0]
    for axes, (name, (values, palette, low, high, label)) in zip(panels, shown.items(), strict=True):
        image = axes.imshow(values, cmap=palette, vmin=low, vmax=high, aspect="auto", origin="lower")
        label_axes(axes, values)
        axes.set_title(name, loc="left", pad=12 if any(depth_of(values).groups) else None)
        figure.colorbar(image, ax=axes, label=label)
    style.heading(figure, title, run, "frame_attention", interval=False)
    tables = [tidy(values[0].rename("mean").to_dataset(), panel=name) for name, values in shown.items()]
    return figure, pd.concat(tables, ignore_index=True)


def label_axes(axes: Axes, values: xr.DataArray) -> None:
    """Layers along x, heads along y, at most a dozen numbers each."""
    heads = values.sizes["head"]
    kept = np.arange(0, heads, -(-heads // 12))
    axes.set_yticks(kept, [int(values["head"][i]) for i in kept])
    axes.set_ylabel("head")
    mark(axes, depth_of(values), ticks=10)


def words(table: pd.DataFrame) -> str:
    """The heads with most and least mass on earlier frames, as a sentence."""
    trained = table[table["panel"] == "trained"]
    high, low = trained.loc[trained["mean"].idxmax()], trained.loc[trained["mean"].idxmin()]
    return (
        f"Most mass on earlier frames: {place(high)} head {high['head']} ({high['mean']:.2f}); "
        f"least: {place(low)} head {low['head']} ({low['mean']:.2f})."
    )
