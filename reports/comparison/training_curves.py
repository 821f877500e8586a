"""Curves over the steps of trainings: validation loss, by noise level, and scores of kept checkpoints.

figure, table = draw(read_trainings(folders))
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from framelens.analyses.intervals import enough
from framelens.reports.comparison.trainings import SIGMA, LoggedTraining
from framelens.reports.drawing import style
from framelens.reports.drawing.tables import spell
from framelens.reports.score_table import ScoredNetwork

name = "training-curves"
title = "Trainings over their steps"
caption = (
    "Above: the validation loss of the averaged weights on held-out clips, in the mean over noise levels and "
    "at some of them (sigma 1 is noise). Below: scores of the kept checkpoints with 95 % intervals over "
    "clips. The next frame is sampled from its true past. The memory error is the squared error of pixels "
    "whose place was seen only before the last frame. There is one training for each line, so the intervals "
    "say nothing about other seeds."
)
LOSS = "validation loss"
MOST_SIGMAS = 3
SCORES = {
    "next frame": ("PSNR of the model (dB)", "PSNR (dB)"),
    "memory error": ("squared error, pixels seen only before the last frame", "squared error"),
}
"""Panels of scores: the name in a file of scores, and the axis."""
COPY, COPIED = "copy of the last frame", "PSNR of the copy of the last frame (dB)"
"""The line below which a model of the next frame is worse than a copy."""


@style.look
def draw(trainings: Sequence[LoggedTraining]) -> tuple[Figure, pd.DataFrame]:
    """A line for each training, and the numbers: panel, training, step, mean, low, high."""
    table = tabulate(trainings)
    above = list(dict.fromkeys(table["panel"][table["panel"].str.startswith(LOSS)]))
    below = [panel for panel in SCORES if (table["panel"] == panel).any()]
    width = len(above) * len(below) or len(above)
    rows = [[panel for panel in row for _ in range(width // len(row))] for row in (above, below) if row]
    figure = style.canvas(height=2.5 + 2.2 * bool(below))
    panels: Mapping[str, Axes] = figure.subplot_mosaic(rows)  # pyright: ignore[reportAssignmentType]
    looks = style.arms(training.name for training in trainings)
    for panel, axes in panels.items():
        for training, look in looks.items():
            _draw_line(axes, table[(table["panel"] == panel) & (table["training"] == training)], look)
        axes.set_xlabel("optimiser steps")
        axes.set_title("all noise levels" if panel == LOSS else panel.removeprefix(f"{LOSS}, "), loc="left")
    _finish(panels, above, table)
    lines = {line.get_label(): line for axes in panels.values() for line in axes.get_lines()}
    shown = [label for label in (*looks, COPY) if label in lines]
    figure.legend(
        [lines[label] for label in shown], shown, loc="outside lower center", ncols=min(len(shown), 3)
    )
    style.write_above(figure, f"{title}\n{_describe(trainings, bool(below))}")
    return figure, table


def tabulate(trainings: Sequence[LoggedTraining]) -> pd.DataFrame:
    """The numbers of every panel, as the logs and the files of scores have them."""
    rows: list[dict[str, Any]] = []
    for training in trainings:
        columns = {LOSS: "loss"} | {
            f"{LOSS}, sigma {sigma}": f"{SIGMA}{sigma}" for sigma in _choose(training)
        }
        for panel, column in columns.items():
            for step, loss in zip(training.log["step"], training.log[column], strict=True):
                rows.append({"panel": panel, "training": training.name, "step": step, "mean": loss})
        for panel, (score, _) in SCORES.items():
            for step, network in training.scores.items():
                if score in network.measures:
                    rows.append(
                        {"panel": panel, "training": training.name, "step": step} | _read(network, score)
                    )
    scored = [network for training in trainings for network in training.scores.values()]
    if scored and COPIED in scored[0].measures:
        rows.append({"panel": "next frame", "training": COPY} | _read(scored[0], COPIED))
    return pd.DataFrame(rows, columns=["panel", "training", "step", "mean", "low", "high"]).astype(
        {"mean": float, "low": float, "high": float, "step": "Int64"}
    )


def words(trainings: Sequence[LoggedTraining], table: pd.DataFrame) -> str:
    """Of each training: the last loss, and the scores of the last scored checkpoint."""
    sentences = []
    for training in trainings:
        rows = table[table["training"] == training.name]
        last = rows[rows["panel"] == LOSS].iloc[-1]
        parts = [f"validation loss {last['mean']:.4f} at step {training.step:,}"]
        for panel in SCORES:
            scored = rows[rows["panel"] == panel]
            if len(scored):
                row = scored.iloc[-1]
                unit = " dB" if panel == "next frame" else ""
                parts.append(f"{panel} {spell(row)}{unit} at step {row['step']:,}")
        sentences.append(f"{training.name}: {'; '.join(parts)}.")
    return " ".join(sentences)


def _choose(training: LoggedTraining) -> list[str]:
    """At most MOST_SIGMAS noise levels of the log: the first, the last, and evenly spaced ones between."""
    sigmas = training.sigmas
    places = np.linspace(0, len(sigmas) - 1, min(MOST_SIGMAS, len(sigmas))).round().astype(int)
    return [sigmas[place] for place in places]


def _read(network: ScoredNetwork, score: str) -> dict[str, Any]:
    return {end: network.measures[score][end] for end in ("mean", "low", "high")}


def _draw_line(axes: Axes, rows: pd.DataFrame, look: Mapping[str, Any]) -> None:
    """One training in one panel, with a band where there are intervals; nothing where it has no values."""
    if len(rows):
        values = xr.Dataset({end: ("step", rows[end].to_numpy()) for end in ("mean", "low", "high")})
        style.line(axes, rows["step"].to_numpy(int), values, "", label=rows["training"].iloc[0], **look)


def _finish(panels: Mapping[str, Axes], above: Sequence[str], table: pd.DataFrame) -> None:
    """Axes and their names; a copy of the last frame as a line through the panel of the next frame."""
    for panel, axes in panels.items():
        axes.set_xlim(panels[above[0]].get_xlim())
        if panel in above:
            # A loss of 0, as at step 0 of a distillation, has no place on a logarithmic axis.
            axes.set_yscale("log", nonpositive="mask")
            style.plain_ticks(axes)
            axes.set_ylabel(LOSS if panel == above[0] else "")
        else:
            axes.set_ylabel(SCORES[panel][1])
    for _, row in table[table["training"] == COPY].iterrows():
        look = {"color": style.COLOURS["other"], "linestyle": style.DASHES["other"], "linewidth": 1}
        panels[row["panel"]].axhline(row["mean"], label=COPY, **look)


def _describe(trainings: Sequence[LoggedTraining], has_scores: bool) -> str:
    """What the curves are of, and what the bands are."""
    recipe = trainings[0].recipe
    parts = [f"videos {recipe['videos']}, clips of {recipe['frames']} frames"]
    if has_scores:
        clips = next(iter(next(each for each in trainings if each.scores).scores.values())).settings["clips"]
        parts.append(f"scores of {clips} clips")
        parts.append("band: 95% interval over clips" if enough(clips) else "too few clips for an interval")
    return ", ".join(parts)
