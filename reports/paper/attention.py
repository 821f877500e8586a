"""Figure 3: attention to earlier frames against depth."""

import pandas as pd
from matplotlib.figure import Figure

from framelens.analyses.averages import by_head, summary, uniform_share
from framelens.analyses.depth import depth_of
from framelens.analyses.scales import scale_of
from framelens.reports.drawing import style
from framelens.reports.drawing.layers import mark, place
from framelens.reports.drawing.tables import spell, tidy
from framelens.reports.plots.cross_attention import baseline
from framelens.reports.runs import Run

number = "Figure 3"
name = "figure3"
needs = ("frame_attention",)
title = "Attention to earlier frames by layer"
published = "the mass on earlier frames falls with depth and is small, not zero, in deep layers; no values"


@style.look
def draw(run: Run) -> tuple[Figure, pd.DataFrame]:
    """Mean over heads, queries and steps; bands are intervals over clips."""
    figure, tables = style.canvas(height=2.8), []
    axes = figure.subplots()
    for network in run.networks("frame_attention"):
        stored = run.read("frame_attention", "cross_mass", "uniform", network=network)
        uniform, depth = uniform_share(stored), depth_of(stored)
        drawn = summary(by_head(stored.cross_mass, uniform).mean("head"), scale_of("cross_mass"))
        if network == "trained":
            tables.append(baseline(axes, uniform, depth))
        style.line(axes, depth.positions, drawn, network)
        tables.append(tidy(drawn, panel="cross_mass", curve=network))
    axes.set(ylabel="attention on earlier frames\n(share)", ylim=(0, 1))
    mark(axes, depth, ticks=16)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    style.heading(figure, f"{number}. {title}", run, needs[0])
    return figure, pd.concat(tables, ignore_index=True)


def words(table: pd.DataFrame) -> str:
    """The first and the last layer of the trained network, beside uniform attention."""
    trained = table[table["curve"] == "trained"]
    uniform = float(table[table["curve"] == "uniform"]["mean"].mean())
    first, last = trained.iloc[0], trained.iloc[-1]
    return f"{place(first)} {spell(first)}, {place(last)} {spell(last)}; uniform {uniform:.2f}"
