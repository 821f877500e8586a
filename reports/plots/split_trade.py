"""Quality against the time of a frame: dense, fetched once, separated, and distilled to few steps."""

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from framelens.analyses.averages import summary
from framelens.analyses.intervals import spell_interval
from framelens.reports.drawing import style
from framelens.reports.runs import Run

kind = "split"
needs = ("split",)
order = 1
title = "What separating buys"
caption = (
    "Each point is one sampler; numbers on a line are denoising steps. Across: the time of a frame of a "
    "free run over the dense model's, the median of interleaved rounds. Up: its quality minus that of the "
    "dense model at its usual number of steps on the same clip. Left: PSNR of frames that continue the true "
    "past. Middle: PSNR of the last frame of a free run. Right, in a world with memory: squared error of "
    "pixels that were seen only before the last frame (lower is better). Bars are 95 % intervals over clips."
)
TICKS = (0.05, 0.1, 0.2, 0.3, 0.5, 1, 2)
DRAWN = {
    "next frame": "PSNR − dense (dB)",
    "free run": "PSNR − dense (dB)",
    "memory error": "squared error − dense",
}


@style.look
def draw(run: Run) -> tuple[Figure, pd.DataFrame]:
    """A panel for each score; one colour and line for each kind of sampler."""
    table = tabulate(run.read("split"))
    kinds = table["sampler"].str.rpartition(", ")[0]
    panels = [name for name in DRAWN if name in table["score"].unique()]
    figure = style.canvas(height=3.6)
    for axes, score in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels, strict=True):
        for name, look in style.arms(kinds.unique()).items():
            rows = table[(table["score"] == score) & (kinds == name)]
            middle = rows["difference mean"]
            ends = np.stack([middle - rows["difference low"], rows["difference high"] - middle])
            has_line = len(rows) > 1
            label = name if has_line else rows["sampler"].iloc[0]
            look |= {"marker": "o", "markersize": 7} if has_line else {"linestyle": "none"}
            axes.errorbar(rows["time"], middle, yerr=np.nan_to_num(ends), label=label, capsize=2, **look)
            if has_line:
                _write_steps(axes, rows)
        axes.axhline(0, color="black", linewidth=0.5)
        axes.set(xscale="log", xlabel="time of a frame / dense", ylabel=DRAWN[score], title=score)
        shown = [tick for tick in TICKS if table["time"].min() * 0.9 <= tick <= table["time"].max() * 1.1]
        axes.set_xticks(shown, [f"{tick:g}" for tick in shown])
        axes.set_xticks([], minor=True)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    style.title(figure, title, run)
    return figure, table


def _write_steps(axes: Axes, rows: pd.DataFrame) -> None:
    """The number of steps in each point of a line."""
    for _, row in rows.iterrows():
        place = (row["time"], row["difference mean"])
        axes.annotate(str(row["steps"]), place, fontsize=5, color="white", ha="center", va="center", zorder=5)


def tabulate(result: xr.Dataset) -> pd.DataFrame:
    """Mean and interval of every sampler and score, of its difference from the first one, and its time."""
    time = relative_time(result)
    forced, free = (result.psnr.sel(sampling=mode) for mode in ("teacher_forced", "free_running"))
    scores = {"next frame": forced.mean("frame"), "free run": free.isel(frame=-1)}
    scores |= {"diversity": result.diversity, "contrast": result.contrast}
    if "memory_error" in result:
        scores["memory error"] = result.memory_error.dropna("clip")
    rows = []
    for score, values in scores.items():
        own, difference = summary(values), summary(values - values.isel(arm=0))
        for arm in result.arm.values:
            row = {"score": score, "sampler": str(arm), "steps": int(result.evaluations.sel(arm=arm))}
            row["time"] = float(time.sel(arm=arm))
            for name, found in (("", own), ("difference ", difference)):
                row |= {name + end: float(found[end].sel(arm=arm)) for end in ("mean", "low", "high")}
            rows.append(row)
    return pd.DataFrame(rows)


def relative_time(result: xr.Dataset) -> xr.DataArray:
    """The median over rounds of each sampler's time over the dense model's in the same round."""
    return (result.seconds / result.seconds.isel(arm=0)).median("round")


def words(table: pd.DataFrame) -> str:
    """Each sampler's speed-up and scores in a sentence."""
    sentences = []
    for name, rows in table.groupby("sampler", sort=False):
        by_score = rows.set_index("score")
        values = "; ".join(
            f"{score} {spell_interval(row['mean'], row['low'], row['high'], 3 if 'error' in score else 1)}"
            for score, row in by_score.iterrows()
            if score in ("next frame", "free run", "memory error")
        )
        sentences.append(f"{name}: {1 / rows['time'].iloc[0]:.2f} times as fast; {values}.")
    return " ".join(sentences)
