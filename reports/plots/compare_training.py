"""Validation loss of dense and separated networks at equal steps, at equal time, and by noise level."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from framelens.reports.budget import at_equal_time, costs, losses
from framelens.reports.drawing import style
from framelens.reports.drawing.seeds import draw_seeds
from framelens.reports.runs import Run

kind = "compare"
needs = ("compare",)
order = 1
title = "Training at an equal budget"
caption = (
    "Left: velocity error on held-out clips against optimiser steps; every network sees the same clips. "
    "Middle: against training time, counted in steps of the dense network; the cost of a step was "
    "measured with all networks interleaved in one process. Right: the last loss by noise level, relative "
    "to the dense network. Lines are means over seeds; where there are several seeds, thin lines are "
    "single trainings."
)


@style.look
def draw(run: Run) -> tuple[Figure, pd.DataFrame]:
    """Three panels; one colour per network."""
    result = run.read("compare")
    loss, cost, steps = losses(result), costs(result).median("round"), result.checkpoint.values
    figure, rows = style.canvas(height=3.4), []
    left, middle, right = figure.subplots(1, 3)
    relative = result.loss.isel(checkpoint=-1) / result.loss.isel(checkpoint=-1, arm=0)
    for index, (arm, look) in enumerate(style.arms(result.arm.values).items()):
        for axes, x in ((left, steps), (middle, steps * float(cost[index]))):
            mean = draw_seeds(axes, x, loss[index], label=style.spell_arm(arm), **look | {"marker": ""})
            panel = "steps" if axes is left else "dense steps of time"
            rows += [{"panel": panel, "arm": arm, "x": a, "loss": b} for a, b in zip(x, mean, strict=True)]
        ratio = relative[index].mean("seed")
        right.plot(result.sigma, ratio, **look)
        rows += [
            {"panel": "sigma", "arm": arm, "x": float(sigma), "ratio to dense": float(value)}
            for sigma, value in zip(result.sigma, ratio, strict=True)
        ]
    _label(left, middle, right)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    style.title(figure, title, run)
    table = pd.DataFrame(rows)
    table.attrs["equal time"] = dict(
        zip(result.arm.values, at_equal_time(result).mean("seed").values, strict=True)
    )
    return figure, table


def _label(left: Axes, middle: Axes, right: Axes) -> None:
    for axes, unit in ((left, "optimiser steps"), (middle, "time (steps of the dense network)")):
        axes.set(xlabel=unit, ylabel="validation loss")
        style.logarithmic(axes)
    middle.set_ylim(left.get_ylim())
    right.set(xlabel="sigma (1 is noise)", ylabel="last loss relative to dense")
    right.axhline(1, color=style.COLOURS["uniform"], linewidth=0.6)
    for axes, name in zip(
        (left, middle, right), ("Equal steps", "Equal time", "By noise level"), strict=True
    ):
        axes.set_title(name, loc="left")


def words(table: pd.DataFrame) -> str:
    """The last loss of each network, and the loss at equal time."""
    last = table[table["panel"] == "steps"].groupby("arm", sort=False)["loss"].last()
    equal = table.attrs["equal time"]
    parts = [f"{style.spell_arm(arm)} {loss:.4f} ({equal[arm]:.4f})" for arm, loss in last.items()]
    return "Validation loss after equal steps (and after equal time): " + ", ".join(parts) + "."
