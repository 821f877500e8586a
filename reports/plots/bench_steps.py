"""Speed-up over dense against the number of denoising steps, with its bound."""

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from framelens.analyses.intervals import spell_interval
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
    "up to the ratio of one step (dashed). Left: measured ratio of frame times within a round (thick, with "
    "markers), and the prediction from the count of operations (thin). Right: the prediction for the whole "
    "preset, with every fusion."
)


@style.look
def draw(run: Run) -> tuple[Figure, pd.DataFrame]:
    """Left: measured. Right: predicted by arithmetic for the whole preset."""
    times, card = timings(run, "bench_steps"), run.read("bench_card")
    figure = style.canvas(height=3.6)
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
    _explain(figure, times, [str(arm) for arm in card.arm.values if arm != DENSE])
    heading(figure, title, run)
    arithmetic = card[["speed_up_steps", "bound_steps"]].drop_sel(arm=DENSE).to_dataframe().reset_index()
    arithmetic = arithmetic.rename(
        columns={"speed_up_steps": "speed_up_flops", "bound_steps": "speed_up_bound"}
    )
    arithmetic.insert(0, "panel", "arithmetic")
    return figure, pd.concat([table(times, panel="measured"), arithmetic], ignore_index=True)


def _explain(figure: Figure, times: xr.Dataset, fusions: list[str]) -> None:
    """One legend for both panels: a colour for each fusion, and what each kind of line is."""
    named = {label: Line2D([], [], **look) for label, _, look in arms(times, with_dense=False)}
    for fusion in fusions:
        named.setdefault(style.spell_arm(fusion), Line2D([], [], color=COLOURS[fusion]))
    kinds = (("by operations", "-", "0.4"), ("bound", "--", "0.4"), ("dense", "-", "black"))
    for label, dash, colour in kinds:
        named[label] = Line2D([], [], color=colour, linestyle=dash, linewidth=0.8)
    figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=5)


def _arithmetic(axes: Axes, steps: np.ndarray, own: xr.Dataset, arm: str) -> None:
    axes.plot(steps, own["speed_up_steps"], color=COLOURS[arm], linewidth=0.8)
    axes.axhline(float(own["bound_steps"][0]), color=COLOURS[arm], linestyle="--", linewidth=0.8)


def words(table: pd.DataFrame) -> str:
    """Measured and predicted speed-up at the most steps, and the bound, as sentences."""
    rounds = table[(table["panel"] == "measured") & (table["arm"] != DENSE)]
    sentences = []
    for arm, rows in rounds.groupby("arm", sort=False):
        last = rows.loc[rows["steps"].idxmax()]
        measured = spell_interval(*(last[f"speed_up_{end}"] for end in ("median", "low", "high")))
        sentences.append(
            f"{style.spell_arm(str(arm)).capitalize()}, {int(last['steps'])} steps: speed-up over dense "
            f"{measured}, by operations {last['speed_up_flops']:.2f}, bound {last['speed_up_bound']:.2f}."
        )
    return " ".join(sentences)
