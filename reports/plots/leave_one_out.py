"""The loss of the velocity and of the frame without one layer."""

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from framelens.reports.drawing import colours, style
from framelens.reports.drawing.effects import absolute, layer_ticks, level, networks, plain, ratio
from framelens.reports.drawing.tables import spell, tidy
from framelens.reports.runs import Run

needs = ("leave_one_out",)
order = 14
title = "One layer left out"
caption = (
    "Each layer is left out in turn: its input is passed to the next layer. Left: velocity error divided "
    "by that of the whole network, mean over five equally likely noise levels; 1 (grey) means no loss. "
    "The null leaves out the same layer of the network with random weights, which has learned nothing "
    "that it could lose. Right: error of the generated frame. Below: the velocity error by noise level. "
    "Layers that can each be left out alone may still be needed together."
)
LEAST_SPAN = 1.5


@style.look
def draw(run: Run) -> tuple[Figure, pd.DataFrame]:
    """Error ratio and error of the frame by layer, and the ratio by layer and sigma; bands are intervals."""
    stored = run.read("leave_one_out")
    figure = style.canvas(height=4.6)
    grid = figure.add_gridspec(2, 2)
    left, right = (figure.add_subplot(grid[0, column]) for column in (0, 1))
    tables = []
    for network in networks(stored):
        values = ratio(stored, network)
        style.line(left, values.layer.values, values, network)
        tables.append(tidy(values, panel="error_ratio", curve=network))
    style.logarithmic(left)
    left.axhline(1, color="0.5", linewidth=0.8, zorder=0)
    left.set_ylabel("velocity error /\nwhole network's")
    left.set_title("Velocity", loc="left")
    drawn = absolute(stored, "mse")
    style.line(right, drawn.layer.values, drawn, "trained")
    level(right, plain(stored, "mse"))
    style.logarithmic(right)
    right.set_ylabel("mean squared error")
    right.set_title("Generated frame", loc="left")
    named = {}
    for axes in (left, right):
        named |= dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))
    figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=3)
    tables.append(tidy(drawn, panel="drawn_mse", curve="trained"))
    for axes in (left, right):
        layer_ticks(axes, drawn.layer.values, "layer left out", most=12)
    tables.append(_by_sigma(figure.add_subplot(grid[1, :]), ratio(stored, by_sigma=True)))
    style.heading(figure, title, run, "leave_one_out")
    return figure, pd.concat(tables, ignore_index=True)


def _by_sigma(axes: Axes, values: xr.Dataset) -> pd.DataFrame:
    """The ratio of the trained network as a map, noise upwards; returns what was drawn."""
    mean = values["mean"].transpose("sigma", "layer").sortby("sigma")
    low, high = float(mean.min()), float(mean.max())
    low, high = min(low, 1.0), max(high, LEAST_SPAN)
    image = axes.imshow(
        mean, cmap=colours.SEQUENTIAL, norm=LogNorm(max(low, 1e-3), high), aspect="auto", origin="lower",
        interpolation="none",
    )  # fmt: skip
    stride = -(-mean.sizes["layer"] // 24)
    shown = np.arange(0, mean.sizes["layer"], stride)
    axes.set_xticks(shown, [int(mean.layer[i]) for i in shown])
    axes.set_yticks(range(mean.sizes["sigma"]), [f"{float(sigma):.2f}" for sigma in mean.sigma])
    axes.set(xlabel="layer left out", ylabel="sigma (1 = noise)")
    axes.set_title("Velocity by noise level, trained", loc="left")
    bar = axes.figure.colorbar(image, ax=axes, label="error / whole model's")
    style.plain_ticks(bar.ax)
    return tidy(values, panel="error_ratio_by_sigma", curve="trained")


def words(table: pd.DataFrame) -> str:
    """The most and the least needed layers, and the null, as sentences."""
    ratios = table[table["panel"] == "error_ratio"].dropna(subset=["mean"])
    trained = ratios[ratios["curve"] == "trained"]
    high, low = trained.loc[trained["mean"].idxmax()], trained.loc[trained["mean"].idxmin()]
    text = (
        f"Most needed: layer {int(high['layer'])}, {spell(high, 1)} times the velocity error without it; "
        f"least needed: layer "
        f"{int(low['layer'])}, {spell(low, 1)} times."
    )
    null = ratios[ratios["curve"] == "random"]
    if len(null):
        text += f" With random weights: between {null['mean'].min():.2f} and {null['mean'].max():.2f} times."
    return text
