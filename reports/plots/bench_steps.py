"""Speed-up over dense against the number of denoising steps, with its bound."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from framelens.records.manifest import BenchManifest
from framelens.reports.drawing import style
from framelens.reports.drawing.bench import COLOURS, DENSE, arms, curve, heading, integers, table, timings
from framelens.reports.runs import Run

kind = "bench"
needs = ("bench_steps", "bench_card")
order = 2
TICKS = (1, 2, 4, 8, 16, 50, 100, 1000)
title = "Speed-up against denoising steps"
caption = (
    "The encoder runs once per frame, the decoder at every step. The more steps, the larger the speed-up, "
    "up to the ratio of one step (dashed). Left: measured ratio of frame times within a round; thin lines "
    "are predicted from the count of operations. Right: predicted from the count of operations for the "
    "whole preset, with every fusion."
)


@style.look
def draw(run: Run) -> tuple[Figure, pd.DataFrame]:
    """Left: measured. Right: predicted by arithmetic for the whole preset."""
    times, card = timings(run, "bench_steps"), run.read("bench_card")
    figure = style.canvas(height=3.3)
    left, right = figure.subplots(1, 2)
    for label, own, look in arms(times, with_dense=False):
        curve(left, own, "speed_up", label, look)
        if str(own["mode"].values) == "plain":
            left.plot(times["steps"], own["speed_up_flops"], color=look["color"], linewidth=0.8)
            left.axhline(float(own["speed_up_bound"][0]), color=look["color"], linestyle="--", linewidth=0.8)
    integers(left, times["steps"].values, log=True)
    left.set_title("Measured", loc="left")
    for arm in card.arm.values:
        if arm != DENSE:
            _arithmetic(right, card["steps"].values, card.sel(arm=arm), str(arm))
    integers(right, np.intersect1d(card["steps"].values, TICKS), log=True)
    right.set_title(f"By arithmetic, {run.manifest_as(BenchManifest).preset}", loc="left")
    for axes in (left, right):
        axes.set_xlabel("denoising steps")
        axes.set_ylabel("speed-up over dense")
        axes.set_ylim(bottom=0)
        axes.axhline(1, color=COLOURS[DENSE], linewidth=0.8)
        axes.legend(loc="lower right")
    heading(figure, title, run)
    arithmetic = card[["speed_up_steps", "bound_steps"]].drop_sel(arm=DENSE).to_dataframe().reset_index()
    arithmetic = arithmetic.rename(
        columns={"speed_up_steps": "speed_up_flops", "bound_steps": "speed_up_bound"}
    )
    arithmetic.insert(0, "panel", "arithmetic")
    return figure, pd.concat([table(times, panel="measured"), arithmetic], ignore_index=True)


def _arithmetic(axes: Axes, steps: np.ndarray, own, arm: str) -> None:
    axes.plot(steps, own["speed_up_steps"], color=COLOURS[arm], label=arm.replace("_", " "))
    axes.axhline(float(own["bound_steps"][0]), color=COLOURS[arm], linestyle="--", linewidth=0.8)


def words(table: pd.DataFrame) -> str:
    """Measured and predicted speed-up at the most steps, and the bound, as sentences."""
    measured = table[(table["panel"] == "measured") & (table["arm"] != DENSE)]
    sentences = []
    for arm, rows in measured.groupby("arm", sort=False):
        last = rows.loc[rows["steps"].idxmax()]
        sentences.append(
            f"{str(arm).replace('_', ' ').capitalize()}, {int(last['steps'])} steps: "
            f"{last['speed_up_median']:.2f} times as fast as dense [{last['speed_up_low']:.2f}, "
            f"{last['speed_up_high']:.2f}], by operations {last['speed_up_flops']:.2f}, "
            f"bound {last['speed_up_bound']:.2f}."
        )
    return " ".join(sentences)
