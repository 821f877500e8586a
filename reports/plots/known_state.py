"""How well a world's known state can be read from each layer."""

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from framelens.analyses.averages import summary
from framelens.analyses.depth import depth_of
from framelens.reports.drawing import style
from framelens.reports.drawing.layers import mark, place
from framelens.reports.drawing.tables import spell, tidy
from framelens.reports.runs import Run

needs = ("known_state",)
order = 3.5
title = "State of the world that each layer knows"
caption = (
    "Ridge regression of the known state from a layer's tokens, with true past frames, scored on clips "
    "that were left out: balanced accuracy for classes, R² for numbers. At sigma 1 the input holds "
    "nothing of the frame, so a state that can be read there came from the past or from the action; near "
    "sigma 0 the frame itself shows what is in view. Nulls, at sigma 1: the state of another clip, which "
    "also shows what the position of a token gives away, and the network with random weights. The black "
    "line is a guess that uses no features. Controls cannot be known at sigma 1."
)
COLUMNS = 3
NULL, RANDOM = "shuffled", "random"


@style.look
def draw(run: Run) -> tuple[Figure, pd.DataFrame]:
    """One panel per target: its score against depth at each noise level; bands are intervals over clips."""
    stored = run.read("known_state")
    targets, depth = stored.sizes["target"], depth_of(stored)
    rows = -(-targets // COLUMNS)
    figure = style.canvas(height=0.9 + 1.55 * rows)
    grid = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    tables = []
    for index, axes in enumerate(grid[:targets]):
        tables += panel(axes, stored.isel(target=index))
        is_lowest = index + COLUMNS >= targets
        mark(axes, depth, ticks=6, label="layer" if is_lowest else "")
        axes.tick_params(labelbottom=is_lowest)
    for axes in grid[targets:]:
        axes.set_axis_off()
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    style.heading(figure, title, run, "known_state")
    return figure, pd.concat(tables, ignore_index=True)


def panel(axes: Axes, target: xr.Dataset) -> list[pd.DataFrame]:
    """Draws one target's curves and gives their numbers."""
    name, chance = str(target.target.values), float(target.chance)
    sigmas = np.sort(target.sigma.values)[::-1]
    highest = {"sigma": sigmas[0], "drop": True}
    trained = target.score.sel(network="trained", drop=True)
    curves = [
        (f"sigma {sigma:.2g}", trained.sel(sigma=sigma, drop=True), {"color": shade, "linestyle": "-"})
        for sigma, shade in zip(sigmas, style.ramp(len(sigmas))[::-1], strict=True)
    ]
    curves.append((NULL, target.score_shuffled.sel(**highest), {"marker": ""}))
    if RANDOM in target.network.values:
        random = target.score.sel(network=RANDOM, drop=True)
        curves.append((RANDOM, random.sel(**highest), {"marker": ""}))
    tables = []
    about = {"group": str(target.group.values), "measure": str(target.measure.values)}
    for label, values, options in curves:
        drawn = summary(values.drop_vars(set(values.coords) - {"layer", "point", "clip"}))
        style.line(axes, np.arange(drawn.sizes["layer"]), drawn, label, **options)
        tables.append(
            tidy(drawn, panel=name, curve=label, **about).assign(chance=chance, rows=float(target.rows))
        )
    axes.axhline(chance, color=style.COLOURS["uniform"], linewidth=0.6)
    axes.set_ylim(min(-0.1, chance - 0.1), 1.05)
    axes.set_title(name + (" (control)" if about["group"] == "control" else ""), loc="left")
    axes.set_ylabel("R²" if about["measure"] == "R²" else "accuracy")
    return tables


def words(table: pd.DataFrame) -> str:
    """At the highest noise level: the best layer of each target, and the first with half of its gain."""
    trained = table[table["curve"].str.startswith("sigma ")]
    highest = trained["curve"].iloc[0]
    known, unknown = [], []
    for name, rows in trained[trained["curve"] == highest].dropna(subset="mean").groupby("panel", sort=False):
        null = table[(table["panel"] == name) & (table["curve"] == NULL)]
        best, bar = rows.loc[rows["mean"].idxmax()], null["high"].fillna(null["mean"]).max()
        if best["mean" if np.isnan(best["low"]) else "low"] > bar:
            half = rows[rows["mean"] >= (null["mean"].mean() + best["mean"]) / 2].iloc[0]
            known.append(f"{name}: {spell(best)} at {place(best)}, half of the gain at {place(half)}")
        else:
            unknown.append(f"{name} ({best['rows']:.0f} places)")
    sentences = [f"Best known at {highest}: {'; '.join(known)}."] if known else []
    sentences += [f"Not above the null at {highest}: {', '.join(unknown)}."] if unknown else []
    return " ".join(sentences)
