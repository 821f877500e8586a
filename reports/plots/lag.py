"""Earlier frames that each layer attends to: attention mass by lag."""

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from framelens.analyses.averages import by_lag, summary
from framelens.analyses.depth import Depth, depth_of
from framelens.analyses.sample import per_film
from framelens.analyses.scales import scale_of
from framelens.reports.drawing import colours, style
from framelens.reports.drawing.layers import mark, place
from framelens.reports.drawing.tables import tidy
from framelens.reports.runs import Run

needs = ("frame_attention",)
order = 5
title = "Attention by distance in frames"
caption = (
    "Left: attention mass at each lag (0: the frame that is denoised, or all of its chunk; 1: the frame "
    "before) divided by the share of keys at that lag; uniform attention gives 1. Right: the mass itself "
    "in a few layers. Trained network, mean over heads, queries, steps and the frames that have a past of "
    "this length."
)
LINES = 5
MOST = 16
"""The colour bar reaches as far as the data, and at most to 16 times more and less than uniform."""


@style.look
def draw(run: Run) -> tuple[Figure, pd.DataFrame]:
    """Heat map of layer by lag beside the lag curves of a few layers."""
    stored = run.read("frame_attention", "mass", "uniform", network="trained")
    mass, share = by_lag(stored)
    depth = depth_of(mass)
    relative = (per_film(mass).mean("clip") / share).transpose("layer", "lag")

    figure = style.canvas(height=3.4)
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
    heat(figure, left, relative, depth)
    tables = [tidy(relative.rename("mean").to_dataset(), panel="relative to uniform")]
    chosen = depth.pick(LINES)
    drawn = summary(mass.isel(layer=chosen), scale_of("mass"))
    for line, (position, look) in enumerate(zip(chosen, colours.looks(len(chosen)), strict=True)):
        style.line(right, mass.lag.values, drawn.isel(layer=line), "", depth.short(position), **look)
    tables.append(tidy(drawn, panel="mass"))
    flat = share.mean("layer") if "layer" in share.dims else share
    right.plot(
        flat.lag, flat, color=style.COLOURS["uniform"], linestyle=style.DASHES["uniform"], label="uniform"
    )
    tables.append(tidy(flat.rename("mean").to_dataset(), panel="uniform"))
    right.set(xlabel="lag (frames back)", ylabel="attention mass (share)", ylim=(0, None))
    right.xaxis.get_major_locator().set_params(integer=True)
    right.legend()
    style.heading(figure, title, run, "frame_attention")
    return figure, pd.concat(tables, ignore_index=True)


def heat(figure: Figure, axes: Axes, relative: xr.DataArray, depth: Depth) -> None:
    """Draws layer by lag on a logarithmic colour scale centred on uniform; grey where no such key exists."""
    reach, is_clipped = reach_of(relative.values)
    axes.set_facecolor(colours.ABSENT)
    shown = np.ma.masked_invalid(np.clip(relative.values, 1 / reach, reach))
    norm = LogNorm(1 / reach, reach)
    image = axes.imshow(shown, cmap=colours.DIVERGING, norm=norm, aspect="auto", origin="lower")
    lags = relative.sizes["lag"]
    kept = np.arange(0, lags, max(1, lags // 8))
    axes.set_xticks(kept, [int(relative.lag[i]) for i in kept])
    axes.set_xlabel("lag (frames back)")
    mark(axes, depth, along="y", ticks=16)
    ends = "both" if is_clipped else "neither"
    bar = figure.colorbar(image, ax=axes, label="mass / uniform share", extend=ends)
    times = [2**power for power in range(1, int(np.log2(reach)) + 1)]
    marks = {f"1/{time}": 1 / time for time in times[::-1]} | {"1": 1} | {str(time): time for time in times}
    bar.set_ticks(list(marks.values()), labels=list(marks), minor=False)
    bar.set_ticks([], minor=True)


def reach_of(ratios: np.ndarray) -> tuple[int, bool]:
    """The end of a symmetric colour bar of ratios, a power of two up to MOST, and whether some lie beyond."""
    finite = ratios[np.isfinite(ratios) & (ratios > 0)]
    furthest = float(np.abs(np.log2(finite)).max()) if finite.size else 0.0
    reach = 2 ** max(1, int(np.ceil(furthest - 1e-9)))
    return min(reach, MOST), reach > MOST or bool((ratios == 0).any())


def words(table: pd.DataFrame) -> str:
    """The layer and the earlier frame with the most attention for its share of keys, as a sentence."""
    past = table[(table["panel"] == "relative to uniform") & (table["lag"] >= 1)]
    peak = past.loc[past["mean"].idxmax()]
    return (
        f"Among earlier frames, attention is sharpest at {place(peak)}, lag {peak['lag']:.0f}: "
        f"{peak['mean']:.1f} times its share of the keys."
    )
