"""Frames that dense and separated networks generate: the next frame, and the drift of free runs."""

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from framelens.analyses.intervals import mean_interval
from framelens.records.manifest import CompareManifest
from framelens.reports.drawing import style
from framelens.reports.runs import Run

kind = "compare"
needs = ("compare",)
order = 2
title = "Generated frames after an equal number of training steps"
caption = (
    "Top: each frame is generated from its true past, mean over frames; the grey line is a copy of the "
    "last frame. Bottom: free runs, in which generated frames become the past; the grey line repeats the "
    "last given frame. The state error is computed from the state that is read from the frames. Intervals "
    "are 95% over clips, after the mean over seeds."
)
BARS = (("psnr", "PSNR (dB)", "Next frame, PSNR"), ("ssim", "SSIM", "Next frame, SSIM"))


@style.look
def draw(run: Run) -> tuple[Figure, pd.DataFrame]:
    """Four panels; without a known state three."""
    result = run.read("compare")
    figure, tables = style.canvas(height=5.4), []
    grid = figure.subplots(2, 2)
    arms = style.arms(result.arm.values)
    for axes, (name, unit, heading) in zip(grid[0], BARS, strict=True):
        tables.append(_dots(axes, result[name], arms, heading))
        axes.set_xlabel(unit)
        axes.set_title(heading, loc="left")
    lines = [("psnr", "PSNR (dB)", "Free run, PSNR")]
    if "state_error" in result:
        lines.append(("state_error", run.manifest_as(CompareManifest).state_error, "Free run, state error"))
    for axes, (name, unit, heading) in zip(grid[1], lines, strict=False):
        tables.append(_lines(axes, result[name], arms, heading))
        axes.set(xlabel="frame", ylabel="\n".join(_fold(unit)), xticks=result.frame.values)
        axes.set_title(heading, loc="left")
    if len(lines) == 1:
        grid[1, 1].remove()
    figure.legend(*grid[1, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    style.title(figure, title, run)
    return figure, pd.concat(tables, ignore_index=True)


def _fold(text: str) -> list[str]:
    half = text.rfind(" ", 0, len(text) // 2 + 8)
    return [text] if len(text) < 32 else [text[:half], text[half + 1 :]]


def _dots(axes: Axes, values: xr.DataArray, arms: dict, panel: str) -> pd.DataFrame:
    """One row per network: mean over frames and seeds with its interval over clips."""
    drawn = values.mean(("frame", "seed"))
    rows = []
    for place, (arm, look) in enumerate(arms.items()):
        mean, low, high = (
            float(v) for v in mean_interval(drawn.sel(arm=arm, sampling="teacher_forced").values)
        )
        axes.errorbar(mean, place, xerr=[[mean - low], [high - mean]], **look | {"linestyle": ""}, capsize=2)
        rows.append({"panel": panel, "arm": arm, "mean": mean, "low": low, "high": high})
    copied = float(drawn.sel(sampling="copy").mean())
    axes.axvline(copied, color=style.COLOURS["other"], linestyle=":")
    rows.append({"panel": panel, "arm": "copy", "mean": copied})
    axes.set_yticks(range(len(arms)), [style.spell_arm(arm) for arm in arms])
    axes.invert_yaxis()
    return pd.DataFrame(rows)


def _lines(axes: Axes, values: xr.DataArray, arms: dict, panel: str) -> pd.DataFrame:
    """One line per network over the frames of a free run, with the interval over clips."""
    rows, frames = [], values.frame.values
    drawn = values.mean("seed")
    looks = arms | {"copy of the context": {"color": style.COLOURS["other"], "linestyle": ":"}}
    for arm, look in looks.items():
        own = (
            drawn.sel(arm=arm, sampling="free_running")
            if arm in arms
            else drawn.isel(arm=0).sel(sampling="copy of the context")
        )
        mean, low, high = mean_interval(own.transpose("clip", "frame").values)
        axes.plot(frames, mean, label=style.spell_arm(arm), **look)
        if np.isfinite(low).any():
            axes.fill_between(frames, low, high, color=look["color"], alpha=0.07, linewidth=0)
        rows += [
            {"panel": panel, "arm": arm, "frame": f, "mean": m, "low": lo, "high": hi}
            for f, m, lo, hi in zip(frames, mean, low, high, strict=True)
        ]
    return pd.DataFrame(rows)


def words(table: pd.DataFrame) -> str:
    """Each network's next frame, and its free run's last frame."""
    sentences = []
    for panel, rows in table.groupby("panel", sort=False):
        when = " at the last frame" if rows["frame"].notna().any() else ""
        last = rows.groupby("arm", sort=False).last()
        values = ", ".join(f"{style.spell_arm(arm)} {row['mean']:.3g}" for arm, row in last.iterrows())
        sentences.append(f"{panel}{when}: {values}.")
    return " ".join(sentences)
