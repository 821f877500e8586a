"""Norm of what each layer's attention and MLP write into the residual stream."""

import pandas as pd
from matplotlib.figure import Figure

from framelens.analyses.averages import summary
from framelens.analyses.depth import depth_of
from framelens.reports.drawing import style
from framelens.reports.drawing.layers import mark, place
from framelens.reports.drawing.tables import spell, tidy
from framelens.reports.runs import Run

needs = ("block_norms",)
order = 8
title = "Norm that each block writes"
caption = (
    "Root-mean-square token norm of what attention and MLP add (top: as it is; bottom: divided by the "
    "norm of the residual stream after the layer), mean over steps and frames. The upper axes are "
    "logarithmic. A large norm shows that a block writes, not that later layers use what it writes."
)
WRITERS = {"attn_out": "attention", "mlp_out": "MLP"}


@style.look
def draw(run: Run) -> tuple[Figure, pd.DataFrame]:
    """Attention left, MLP right; absolute above relative; bands are intervals over clips."""
    figure = style.canvas(height=4.2)
    grid = figure.subplots(2, 2, sharex=True, sharey="row")
    tables = []
    for network in run.networks("block_norms"):
        stored = run.read("block_norms", network=network)
        stored = stored.isel(layer=depth_of(stored).blocks)
        depth = depth_of(stored)
        for column, (writer, name) in zip(grid.T, WRITERS.items(), strict=True):
            written = stored[writer]
            for axes, panel, values in zip(
                column, ("absolute", "relative"), (written, written / stored.resid_post), strict=True
            ):
                drawn = summary(values.mean(("frame", "step")))
                style.line(axes, depth.positions, drawn, network)
                tables.append(tidy(drawn, panel=panel, writer=name, network=network))
            column[0].set_title(name, loc="left", pad=12 if any(depth.groups) else None)
            mark(column[0], depth, label="")
            mark(column[1], depth)
    for axes in grid[0]:
        axes.set_yscale("log", subs=(2, 5))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")
    grid[1, 0].set_ylim(bottom=0)
    grid[0, 0].set_ylabel("token norm\n(RMS, model units)")
    grid[1, 0].set_ylabel("token norm /\nresidual norm")
    grid[0, 1].legend()
    style.heading(figure, title, run, "block_norms")
    return figure, pd.concat(tables, ignore_index=True)


def words(table: pd.DataFrame) -> str:
    """The layers where attention and MLP write most, relative to the residual stream, as sentences."""
    trained = table[(table["panel"] == "relative") & (table["network"] == "trained")]
    sentences = []
    for writer, rows in trained.groupby("writer", sort=False):
        most = rows.loc[rows["mean"].idxmax()]
        sentences.append(f"{writer} writes most at {place(most)}: {spell(most)} of the residual norm.")
    return " ".join(sentence[0].upper() + sentence[1:] for sentence in sentences)
