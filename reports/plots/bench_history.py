"""Time of a denoising step, of encoding a frame and of a whole frame, against the frames of history."""

import pandas as pd
from matplotlib.figure import Figure

from framelens.reports.drawing import style
from framelens.reports.drawing.bench import arms, curve, heading, integers, table, timings
from framelens.reports.runs import Run

kind = "bench"
needs = ("bench_history",)
order = 1
title = "Time against history"
caption = (
    "A dense model attends to all of the past at every denoising step. In a separated model only the "
    "encoder sees the past, once per frame. Solid: measured. Dotted: the roofline, from rates that were "
    "measured on this machine before."
)
PANELS = {"step": "One denoising step", "encode": "Encoding a finished frame", "frame": "A frame"}


@style.look
def draw(run: Run) -> tuple[Figure, pd.DataFrame]:
    """Three panels against history; bands span the rounds."""
    times = timings(run, "bench_history")
    figure = style.canvas(height=2.9)
    for axes, (measure, name) in zip(figure.subplots(1, 3), PANELS.items(), strict=True):
        for label, own, look in arms(times):
            curve(axes, own, f"{measure}_seconds", label, look, scale=1000)
            roofline = 1000 * own[f"{measure}_roofline"]
            axes.plot(times["history"], roofline, color=look["color"], linestyle=(0, (1, 1)), linewidth=1)
        integers(axes, times["history"].values)
        axes.set_title(name, loc="left")
        axes.set_xlabel("frames of history")
        axes.set_ylim(bottom=0)
        axes.set_ylabel("milliseconds")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    heading(figure, title, run)
    return figure, table(times)


def words(table: pd.DataFrame) -> str:
    """How much a denoising step of each arm grows over the histories, as sentences."""
    sentences = []
    for arm, rows in table.groupby("arm", sort=False):
        first, last = rows.loc[rows["history"].idxmin()], rows.loc[rows["history"].idxmax()]
        sentences.append(
            f"{style.spell_arm(str(arm)).capitalize()}: a denoising step takes "
            f"{1000 * first['step_seconds_median']:.1f} ms at a history of {first['history']} and "
            f"{1000 * last['step_seconds_median']:.1f} ms at {last['history']}, a frame "
            f"{1000 * first['frame_seconds_median']:.0f} and {1000 * last['frame_seconds_median']:.0f} ms."
        )
    return " ".join(sentences)
