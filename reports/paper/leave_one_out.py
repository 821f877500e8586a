"""Figure 7: the validation loss without one layer."""

import pandas as pd
from matplotlib.figure import Figure

from framelens.analyses.averages import summary
from framelens.analyses.scales import scale_of
from framelens.reports.drawing import style
from framelens.reports.drawing.effects import layer_ticks, level
from framelens.reports.drawing.tables import spell, tidy
from framelens.reports.runs import Run

number = "Figure 7"
name = "figure7"
needs = ("leave_one_out",)
title = "Validation loss with one layer left out"
published = (
    "Wan2.1 T2V-1.3B, mean over 5 noise levels: the earliest and the latest layers cost most, middle ones "
    "least; no values"
)


@style.look
def draw(run: Run) -> tuple[Figure, pd.DataFrame]:
    """Velocity error, mean over the noise levels; bands are intervals over clips."""
    stored = run.read("leave_one_out").sel(network="trained", drop=True)
    scale = scale_of("velocity_error")
    drawn = summary(stored.velocity_error.mean("sigma"), scale)
    whole = summary(stored.plain_velocity_error.mean("sigma"), scale)
    figure = style.canvas(height=2.8)
    axes = figure.subplots()
    style.line(axes, drawn.layer.values, drawn, "trained", "one layer left out")
    level(axes, whole)
    style.logarithmic(axes)
    layer_ticks(axes, drawn.layer.values, "layer left out", most=16)
    axes.set_ylabel(f"velocity loss, mean of\n{stored.sizes['sigma']} noise levels")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    style.heading(figure, f"{number}. {title}", run, needs[0])
    tables = [tidy(drawn, curve="one layer left out"), tidy(whole.expand_dims("layer"), curve="whole model")]
    return figure, pd.concat([table.drop(columns="point", errors="ignore") for table in tables])


def words(table: pd.DataFrame) -> str:
    """The most and the least needed layer, and the whole model."""
    without = table[table["curve"] == "one layer left out"]
    whole = table[table["curve"] == "whole model"].iloc[0]
    most, least = without.loc[without["mean"].idxmax()], without.loc[without["mean"].idxmin()]
    return (
        f"most without layer {int(most['layer'])} ({spell(most, 4)}), least without layer "
        f"{int(least['layer'])} ({spell(least, 4)}); whole model {spell(whole, 4)}"
    )
