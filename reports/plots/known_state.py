"""How well a world's known state can be read from each layer."""

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase

from framelens.analyses.averages import summary
from framelens.analyses.depth import depth_of
from framelens.reports.drawing import colours, style
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
    "line is a guess that uses no features. Controls cannot be known at sigma 1. States that no layer "
    "tells better than the null, at any noise level, share the last panel."
)
COLUMNS = 3
NULL, RANDOM = "shuffled", "random"
PANEL, ROW = 1.75, 0.32
"""Inches of a row of panels, and of a target in the panel of those that no layer knows."""


@style.look
def draw(run: Run) -> tuple[Figure, pd.DataFrame]:
    """A panel for each target that a layer knows, and one for all others; bands are intervals over clips."""
    stored = run.read("known_state")
    targets = [stored.isel(target=at) for at in range(stored.sizes["target"])]
    known = [target for target in targets if is_known(target)]
    unknown = [target for target in targets if not is_known(target)]
    heights = [PANEL * -(-len(known) // COLUMNS)] * bool(known) + [0.8 + ROW * len(unknown)] * bool(unknown)
    figure = style.canvas(height=0.6 + sum(heights))
    parts = list(figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0])
    if known:
        _draw_known(parts[0], known)
    if unknown:
        named = _draw_unknown(parts[-1], unknown)
        if not known:
            parts[-1].legend(named.values(), named.keys(), loc="outside right center")
    style.heading(figure, title, run, "known_state")
    return figure, pd.concat([table for target in targets for table in _tables(target)], ignore_index=True)


def is_known(target: xr.Dataset) -> bool:
    """Whether at some noise level the best layer's interval is above the guess and the null's intervals."""
    for sigma in target.sigma.values:
        at = {"sigma": sigma, "drop": True}
        score = _summary(target.score.sel(network="trained", **at))
        null = _summary(target.score_shuffled.sel(**at))
        low, high = score["low"].fillna(score["mean"]), null["high"].fillna(null["mean"])
        if float(low.max()) > max(float(high.max()), float(target.chance)):
            return True
    return False


def curves(target: xr.Dataset) -> list[tuple[str, xr.Dataset, dict]]:
    """Name, mean and interval by layer, and look: of each noise level, then of the nulls at the highest."""
    sigmas = np.sort(target.sigma.values)[::-1]
    highest = {"sigma": sigmas[0], "drop": True}
    trained = target.score.sel(network="trained", drop=True)
    found = [
        (f"sigma {sigma:.2g}", trained.sel(sigma=sigma, drop=True), {"color": shade, "linestyle": "-"})
        for sigma, shade in zip(sigmas, colours.sigma_shades(sigmas), strict=True)
    ]
    found.append((NULL, target.score_shuffled.sel(**highest), {"marker": ""}))
    if RANDOM in target.network.values:
        random = target.score.sel(network=RANDOM, drop=True)
        found.append((RANDOM, random.sel(**highest), {"marker": ""}))
    return [(label, _summary(values), look) for label, values, look in found]


def _summary(values: xr.DataArray) -> xr.Dataset:
    return summary(values.drop_vars(set(values.coords) - {"layer", "point", "clip"}))


def _tables(target: xr.Dataset) -> list[pd.DataFrame]:
    """The numbers of one target's curves."""
    about = {"group": str(target.group.values), "measure": str(target.measure.values)}
    beside = {"chance": float(target.chance), "rows": float(target.rows)}
    name = str(target.target.values)
    return [
        tidy(values, panel=name, curve=label, **about).assign(**beside) for label, values, _ in curves(target)
    ]


def _draw_known(part: FigureBase, targets: list[xr.Dataset]) -> None:
    """The scores against depth; the legend has the first empty place of the grid, if there is one."""
    depth = depth_of(targets[0])
    grid = part.subplots(-(-len(targets) // COLUMNS), COLUMNS, squeeze=False).ravel()
    for index, (axes, target) in enumerate(zip(grid, targets, strict=False)):
        panel(axes, target)
        mark(axes, depth, ticks=6, label="layer" if index >= len(grid) - COLUMNS else "")
    for axes in grid[len(targets) :]:
        axes.set_axis_off()
    named = grid[0].get_legend_handles_labels()
    if len(targets) < len(grid):
        grid[len(targets)].legend(*named, loc="center left")
    else:
        part.legend(*named, loc="outside lower center", ncols=len(named[1]))


def panel(axes: Axes, target: xr.Dataset) -> None:
    """Draws one target's curves and the guess."""
    chance = float(target.chance)
    for label, values, look in curves(target):
        style.line(axes, np.arange(values.sizes["layer"]), values, label, **look)
    axes.axhline(chance, color=style.COLOURS["uniform"], linewidth=0.6)
    axes.set_ylim(min(-0.1, chance - 0.1), 1.05)
    axes.set_title(name_of(target), loc="left")
    axes.set_ylabel("R²" if str(target.measure.values) == "R²" else "accuracy")


def _draw_unknown(part: FigureBase, targets: list[xr.Dataset]) -> dict[str, Artist]:
    """One row per target: the highest score of any layer with its interval, and the guess as a black line.

    Returns a point of each kind, for a legend.
    """
    axes, named = part.subplots(), {}
    for row, target in enumerate(targets):
        found = [curve for curve in curves(target) if curve[1]["mean"].notnull().any()]
        for step, (label, values, look) in enumerate(found):
            best = values.isel(layer=int(values["mean"].argmax("layer")))
            height = row + 0.7 * ((step + 0.5) / len(found) - 0.5)
            colour = look.get("color", style.COLOURS.get(label))
            marker = "o" if "color" in look else "s"
            axes.hlines(height, float(best["low"]), float(best["high"]), color=colour, linewidth=1.2)
            (point,) = axes.plot(float(best["mean"]), height, marker, color=colour, markersize=3.5)
            named.setdefault(style.WORDS.get(label, label), point)
        chance = float(target.chance)
        axes.plot([chance, chance], [row - 0.4, row + 0.4], color=style.COLOURS["uniform"], linewidth=0.6)
    axes.set_yticks(range(len(targets)), [name_of(target) for target in targets])
    axes.set_ylim(len(targets) - 0.5, -0.5)
    axes.set_xlim(-0.25, 1.05)
    axes.set_xlabel("highest score of any layer (accuracy, or R²)")
    axes.set_title("Known to no layer", loc="left")
    return named


def name_of(target: xr.Dataset) -> str:
    """The target's name, and whether it is a control."""
    return str(target.target.values) + (" (control)" if str(target.group.values) == "control" else "")


def words(table: pd.DataFrame) -> str:
    """At the highest noise level: the best layer of each target, and the first with half of its gain."""
    trained = table[table["curve"].str.startswith("sigma ")]
    highest = trained["curve"].iloc[0]
    known, names, unknown = [], [], []
    for name, rows in trained[trained["curve"] == highest].dropna(subset="mean").groupby("panel", sort=False):
        null = table[(table["panel"] == name) & (table["curve"] == NULL)]
        best, bar = rows.loc[rows["mean"].idxmax()], null["high"].fillna(null["mean"]).max()
        if best["mean" if np.isnan(best["low"]) else "low"] > bar:
            half = rows[rows["mean"] >= (null["mean"].mean() + best["mean"]) / 2].iloc[0]
            known.append(f"{name}: {spell(best)} at {place(best)}, half of the gain at {place(half)}")
            names.append(name)
        else:
            unknown.append(f"{name} ({best['rows']:.0f} places)")
    sentences = [f"Known above the null at {highest}: {', '.join(names)}."] if known else []
    sentences += [f"Best known: {'; '.join(known)}."] if known else []
    sentences += [f"Not above the null at {highest}: {', '.join(unknown)}."] if unknown else []
    return " ".join(sentences)
