"""The loss of the frame when a span of layers is skipped at all but the first few steps."""

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from framelens.reports.drawing import colours, style
from framelens.reports.drawing.effects import absolute, level, plain
from framelens.reports.drawing.tables import spell, tidy
from framelens.reports.runs import Run

needs = ("skip",)
order = 15
title = "A span of layers skipped"
caption = (
    "All layers run in the first steps; then the layers of the span are skipped, without retraining (Bai "
    "et al. 2026 skip layers 8 to 22 of 30). Top: error of the generated frame. Bottom: its gradient "
    "energy relative to the truth; below 1 is blurred. The dashed level is the whole model. The legend "
    "gives the share of the blocks that such a sampler runs."
)
ROWS = {"mse": "mean squared error", "sharpness": "gradient energy / truth's"}


@style.look
def draw(run: Run) -> tuple[Figure, pd.DataFrame]:
    """Error above sharpness, one column per length of the span; bands are intervals over clips."""
    stored = run.read("skip")
    size = stored["last"] - stored["first"] + 1
    sizes = np.unique(size.values)
    figure = style.canvas(height=4.2)
    grid = figure.subplots(2, len(sizes), sharey="row", squeeze=False)
    tables = []
    for column, count in zip(grid.T, sizes, strict=True):
        spans = stored.span.values[size.values == count]
        for axes, measure in zip(column, ROWS, strict=True):
            tables.append(_panel(axes, stored, measure, spans))
        layers = f"{count} layer{'' if count == 1 else 's'}"
        style.logarithmic(column[0])
        column[0].legend(
            title=f"Spans of {layers}. Steps with all layers (blocks run):", alignment="left",
            title_fontsize=8, fontsize=7, ncols=4, loc="lower left", bbox_to_anchor=(-0.03, 0.98),
            columnspacing=1.2, handlelength=1.5,
        )  # fmt: skip
        column[1].set_xlabel("layers skipped")
    for axes, label in zip(grid[:, 0], ROWS.values(), strict=True):
        axes.set_ylabel(label)
    style.heading(figure, title, run, "skip")
    return figure, pd.concat(tables, ignore_index=True)


def _panel(axes: Axes, stored: xr.Dataset, measure: str, spans: np.ndarray) -> pd.DataFrame:
    """One curve per number of steps with all layers; returns what was drawn."""
    values = absolute(stored, measure).sel(span=spans)
    share = stored.block_share.sel(span=spans)
    share = share.mean([dim for dim in share.dims if dim != "kept_steps"])
    kept = values.kept_steps.values
    for steps, shade in zip(kept, colours.shades(len(kept)), strict=True):
        label = f"{steps} ({float(share.sel(kept_steps=steps)):.0%})"
        drawn = values.sel(kept_steps=steps)
        style.line(axes, np.arange(len(spans)), drawn, "", label, color=shade)
    level(axes, plain(stored, measure), label=None)
    stride = -(-len(spans) // 10)
    shown = range(0, len(spans), stride)
    axes.set_xticks(shown, [_span(spans[i]) for i in shown])
    return tidy(values, panel=measure)


def _span(name: str) -> str:
    """3–5 for layers 3 to 5, 3 for one layer."""
    first, last = str(name).split("-")
    return first if first == last else f"{first}–{last}"


def words(table: pd.DataFrame) -> str:
    """The spans that cost least and most, skipped after the smallest number of first steps."""
    errors = table[(table["panel"] == "mse") & (table["kept_steps"] == table["kept_steps"].min())]
    errors = errors.dropna(subset=["mean"])
    low, high = errors.loc[errors["mean"].idxmin()], errors.loc[errors["mean"].idxmax()]
    steps = int(low["kept_steps"])
    when = f"after the first {steps} steps" if steps else "at every step"
    return (
        f"Skipped {when}, error of the generated frame: least without layers "
        f"{_span(low['span'])} ({spell(low, 3)}), most without layers {_span(high['span'])} "
        f"({spell(high, 3)})."
    )
