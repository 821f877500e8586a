"""Measured against predicted values, at every point of every sweep."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from framelens.analyses.intervals import spell_interval
from framelens.reports.drawing import style
from framelens.reports.drawing.bench import DENSE, arms, heading, table, timings, varied_of
from framelens.reports.runs import Run

kind = "bench"
needs = ("bench_history", "bench_steps", "bench_decoder_layers", "bench_batch")
order = 4
title = "Measured over predicted"
caption = (
    "Left: time of a frame against its roofline (linear layers, attention and the launching of blocks, "
    "each at the rate measured on this machine). Right: measured speed-up against the speed-up that the "
    "count of operations predicts. On the solid line prediction and measurement are equal; the dashed "
    "line is 90% of the prediction."
)


@style.look
def draw(run: Run) -> tuple[Figure, pd.DataFrame]:
    """Two scatter plots, one point per arm and setting."""
    figure, tables = style.canvas(height=3.5), []
    left, right = figure.subplots(1, 2)
    for dataset in needs:
        varied, times = varied_of(dataset), timings(run, dataset)
        for label, own, look in arms(times):
            look = look | {"linestyle": "none", "label": label, "alpha": 0.7}
            left.plot(own["frame_roofline"], own["frame_seconds_median"], **look)
            if not label.startswith(DENSE):
                right.plot(own["speed_up_flops"], own["speed_up_median"], **look)
        tables.append(table(times.rename({varied: "value"}), varied=varied))
    left.set(
        xscale="log", yscale="log", xlabel="roofline, seconds a frame", ylabel="measured, seconds a frame"
    )
    right.set(xlabel="predicted speed-up (by operations)", ylabel="measured speed-up")
    right.set_xlim(left=0)
    right.set_ylim(bottom=0)
    _diagonal(left)
    _diagonal(right)
    right.axline((0, 0), slope=0.9, color="#7A7A7A", linestyle="--", linewidth=0.8)
    named = dict(zip(*left.get_legend_handles_labels()[::-1], strict=True))
    figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=4)
    heading(figure, title, run)
    return figure, pd.concat(tables, ignore_index=True)


def _diagonal(axes: Axes) -> None:
    low = min(axes.get_xlim()[0], axes.get_ylim()[0])
    high = max(axes.get_xlim()[1], axes.get_ylim()[1])
    axes.plot([low, high], [low, high], color="#7A7A7A", linewidth=0.8, zorder=0)
    axes.set(xlim=(low, high), ylim=(low, high))


def words(table: pd.DataFrame) -> str:
    """The ratio of measured to predicted over all points, by arm, as sentences."""
    sentences = []
    for arm, rows in table.groupby("arm", sort=False):
        times = rows["frame_seconds_median"] / rows["frame_roofline"]
        ratio = rows["speed_up_median"] / rows["speed_up_flops"]
        gain = "" if str(arm).startswith(DENSE) else (
            f"; its speed-up over that by operations is "
            f"{spell_interval(ratio.median(), ratio.min(), ratio.max())}"
        )  # fmt: skip
        sentences.append(
            f"{style.spell_arm(str(arm)).capitalize()}: the time of a frame over its roofline is "
            f"{spell_interval(times.median(), times.min(), times.max())}{gain}."
        )
    return " ".join(sentences)
