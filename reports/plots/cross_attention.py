"""How much attention goes to earlier frames, and how spread it is, against depth."""

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from framelens.analyses.averages import by_head, summary, uniform_share
from framelens.analyses.depth import Depth, depth_of
from framelens.analyses.sample import per_film
from framelens.analyses.scales import PLAIN, scale_of
from framelens.reports.drawing import style
from framelens.reports.drawing.layers import mark, place
from framelens.reports.drawing.tables import spell, tidy
from framelens.reports.runs import Run

needs = ("frame_attention",)
READ = ("cross_mass", "entropy", "uniform", "uniform_entropy")
order = 4
title = "Attention to earlier frames"
caption = (
    "Top: share of attention on keys of earlier frames (softmax over all keys, then summed by frame), "
    "mean over heads, queries and steps; points are the heads of the trained network. Uniform is the "
    "share of keys that belong to earlier frames: attention without preference gives this value. Bottom: "
    "entropy divided by the logarithm of the number of keys; 1 is uniform. Attention mass does not show "
    "use: a layer can attend to earlier frames and not use what it reads."
)


@style.look
def draw(run: Run) -> tuple[Figure, pd.DataFrame]:
    """Cross-frame mass above relative entropy; bands are intervals over clips."""
    figure = style.canvas(height=4.6)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    tables = []
    for network in run.networks("frame_attention"):
        stored = run.read("frame_attention", *READ, network=network)
        uniform = uniform_share(stored)
        mass = by_head(stored.cross_mass, uniform)
        spread = by_head(stored.entropy / stored.uniform_entropy, uniform)
        depth = depth_of(stored)
        if network == "trained":
            tables += [points(top, mass, "cross_mass"), points(bottom, spread, "relative_entropy")]
            tables.append(baseline(top, uniform, depth))
        for axes, values, panel, scale in (
            (top, mass, "cross_mass", scale_of("cross_mass")),
            (bottom, spread, "relative_entropy", PLAIN),
        ):
            drawn = summary(values.mean("head"), scale)
            style.line(axes, depth.positions, drawn, network, zorder=3)
            tables.append(tidy(drawn, panel=panel, curve=network))
    top.set(ylabel="mass on earlier frames\n(share of attention)", ylim=(0, None))
    bottom.set(ylabel="entropy / log(keys)", ylim=(0, None))
    mark(top, depth, ticks=16, label="")
    mark(bottom, depth, ticks=16)
    top.legend(ncols=4, loc="lower left", bbox_to_anchor=(0, 1.05))
    style.heading(figure, title, run, "frame_attention")
    return figure, pd.concat(tables, ignore_index=True)


def points(axes: Axes, values: xr.DataArray, panel: str) -> pd.DataFrame:
    """Every head of every layer as a thin point; returns what was drawn."""
    heads = per_film(values).mean("clip").transpose("layer", "head")
    aside = np.linspace(-0.2, 0.2, heads.sizes["head"])
    x = np.arange(heads.sizes["layer"])[:, None] + aside
    axes.plot(x.ravel(), heads.values.ravel(), ".", markersize=2.5, color="#8FB8D8", zorder=1,
              label="one head, trained")  # fmt: skip
    return tidy(heads.rename("mean").to_dataset(), panel=panel, curve="one head, trained")


def baseline(axes: Axes, uniform: xr.DataArray, depth: Depth) -> pd.DataFrame:
    """The uniform share of earlier frames, one value per layer; returns what was drawn."""
    past = uniform.where(uniform.lag >= 1).sum("lag").mean("frame")
    share = np.broadcast_to(past.values, len(depth.layers))
    edges = np.array([-0.4, *depth.positions[1:-1], len(share) - 0.6]) if len(share) > 1 else depth.positions
    axes.plot(edges, share, color=style.COLOURS["uniform"], linestyle=style.DASHES["uniform"], linewidth=1.2,
              label=style.WORDS["uniform"])  # fmt: skip
    return pd.DataFrame({"panel": "cross_mass", "curve": "uniform", "layer": depth.layers, "mean": share})


def words(table: pd.DataFrame) -> str:
    """Where the trained network's mass is largest and smallest, beside uniform, as a sentence."""
    mass = table[table["panel"] == "cross_mass"]
    trained, uniform = mass[mass["curve"] == "trained"], mass[mass["curve"] == "uniform"]["mean"].mean()
    low, high = trained.loc[trained["mean"].idxmin()], trained.loc[trained["mean"].idxmax()]
    return (
        f"Mass on earlier frames, trained: largest at {place(high)} ({spell(high)}), smallest at "
        f"{place(low)} ({spell(low)}); uniform attention would give {uniform:.2f}."
    )
