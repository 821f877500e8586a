"""Invariance, attention to earlier frames and similarity over steps during training."""

import pandas as pd
from matplotlib.figure import Figure

from framelens.analyses.averages import summary
from framelens.analyses.depth import depth_of
from framelens.analyses.scales import scale_of
from framelens.reports.drawing import colours, style
from framelens.reports.drawing.layers import place
from framelens.reports.drawing.tables import spell, tidy
from framelens.reports.runs import Run

needs = ("emergence",)
order = 9
title = "The findings during training"
caption = (
    "The same measurements on checkpoints of one training, in a few layers. The leftmost checkpoint is "
    "the untrained network. Light lines are shallow layers, dark lines are deep layers. There is one "
    "training: the interval is over clips, not over seeds."
)
LAYERS = 5
PANELS = {
    "noise_invariance": ("Two noise draws, sigma 1", "centred cosine"),
    "step_similarity_centred": ("Centred similarity of steps", "cosine, mean of step pairs"),
    "cross_mass": ("Attention to earlier frames", "mass (share of attention)"),
}


@style.look
def draw(run: Run) -> tuple[Figure, pd.DataFrame]:
    """Three statistics by checkpoint and layer, and the validation loss."""
    stored = run.read("emergence")
    chosen = depth_of(stored).pick(LAYERS)
    depth = depth_of(stored.isel(layer=chosen))
    figure = style.canvas(height=4.4)
    grid = figure.subplots(2, 2, sharex=True).flat
    tables = []
    for axes, (name, (panel, unit)) in zip(grid, PANELS.items(), strict=False):
        drawn = summary(
            stored[name].isel(layer=chosen).transpose("clip", "checkpoint", "layer"), scale_of(name)
        )
        for line, look in enumerate(colours.looks(len(chosen))):
            curve = drawn.isel(layer=line)
            if curve["mean"].notnull().any():
                style.line(axes, curve.checkpoint.values, curve, "", label=depth.short(line), **look)
        axes.set_title(panel, loc="left")
        axes.set_ylabel(unit)
        tables.append(tidy(drawn, panel=name))
    last = figure.axes[-1]
    last.plot(stored.checkpoint, stored.val_loss, "o-", color="0.2", markersize=3)
    last.set_title("Validation loss", loc="left")
    style.logarithmic(last)
    last.set_ylabel("velocity loss (mean square)")
    tables.append(tidy(stored[["val_loss"]].rename(val_loss="mean"), panel="val_loss"))
    for axes in figure.axes[-2:]:
        axes.set_xlabel("training step")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside right center")
    style.heading(figure, title, run, "emergence")
    return figure, pd.concat(tables, ignore_index=True)


def words(table: pd.DataFrame) -> str:
    """The deepest shown layer at the first and the last checkpoint, as sentences."""
    sentences = []
    for name, (panel, _) in PANELS.items():
        rows = table[(table["panel"] == name)].dropna(subset=["mean"])
        first, last = rows[rows["checkpoint"] == rows["checkpoint"].min()].iloc[-1], rows.iloc[-1]
        sentences.append(
            f"{panel}, {place(last)}: {spell(first)} at step {first['checkpoint']}, "
            f"{spell(last)} at step {last['checkpoint']}."
        )
    return " ".join(sentences)
