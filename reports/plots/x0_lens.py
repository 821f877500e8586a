"""The clean frame as each layer sees it at each step: what a linear map reads from its tokens."""

import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from framelens.analyses.averages import summary
from framelens.analyses.depth import depth_of
from framelens.reports.drawing import style
from framelens.reports.drawing.kept_frames import kept_frames
from framelens.reports.drawing.layers import place
from framelens.reports.drawing.tables import spell, tidy
from framelens.reports.plots.samples import remark_on, show, to_pictures
from framelens.reports.runs import Run

needs = ("x0_lens", "x0_lens_frames")
order = 7.5
title = "The clean frame as each layer sees it"
caption = (
    "The true frame is noised to the level of a step (top row) and denoised once, after its true past. One "
    "affine map for all tokens reads a patch of the clean frame from the token of a layer; it is fitted on "
    "other clips than the one that is shown. R²: on clips that were left out of the fit, mean over clips, "
    "1 for a perfect reading and 0 for the mean patch. Bottom row: what the whole model predicts. What is "
    "read at sigma 1 can only come from the past and the conditions."
)


@style.look
def draw(run: Run) -> tuple[Figure, pd.DataFrame]:
    """Rows are the noised frame, layers and the prediction; columns the truth and the steps."""
    lens, stored = run.read("x0_lens"), kept_frames(run, "x0_lens_frames").isel(clip=0)
    depth, steps = depth_of(lens), list(stored.step.values)
    values = summary(lens.r2)
    pictures = as_pictures(stored)
    rows = {"noised frame": [pictures["noised"].sel(step=step) for step in steps]}
    for at in depth.positions:
        layer = pictures["read"].isel(layer=at)
        rows[depth.short(int(at))] = [layer.sel(step=step) for step in steps]
    rows["whole model"] = [pictures["predicted"].sel(step=step) for step in steps]

    cell = min(0.62, 5.6 / (len(steps) + 1))
    tall = cell * stored.sizes["row"] / stored.sizes["col"]
    figure = style.canvas(height=0.9 + len(rows) * (tall + 0.2), width=1.6 + (len(steps) + 1) * (cell + 0.3))
    grid = figure.subplots(len(rows), len(steps) + 1, squeeze=False)
    for at, (line, (name, found)) in enumerate(zip(grid, rows.items(), strict=True)):
        for axes, picture in zip(line, [pictures["truth"], *found], strict=True):
            show(axes, picture, was_given=False)
        line[0].set_ylabel(name, rotation=0, ha="right", va="center")
        if 0 < at <= len(depth.positions):
            for axes, step in zip(line[1:], steps, strict=True):
                r2 = float(values["mean"].isel(layer=at - 1).sel(step=step))
                axes.set_xlabel(f"R² {r2:z.2f}", fontsize=7, labelpad=1)
    titles = [
        "truth",
        *(f"step {int(step)}\nsigma {float(stored.sigma.sel(step=step)):.2f}" for step in steps),
    ]
    for axes, text in zip(grid[0], titles, strict=True):
        axes.set_title(text)
    frame, clip = int(stored.attrs["frame"]), int(stored["clip"])
    text = f"{title}: frame {frame} of clip {clip}{remark_on(stored)}"
    style.heading(figure, text, run, "x0_lens", interval=False)
    return figure, tidy(values).drop(columns=["point"], errors="ignore")


def as_pictures(stored: xr.Dataset) -> dict[str, xr.DataArray]:
    """The frames of one clip in [-1, 1]; latents as colours."""
    return to_pictures(stored, ("read", "noised", "predicted", "truth"))


def words(table: pd.DataFrame) -> str:
    """R² from the first and the last layer at the first and the last step, as sentences."""
    sentences = []
    for step in (table["step"].min(), table["step"].max()):
        rows = table[table["step"] == step]
        first, last = rows.iloc[0], rows.iloc[-1]
        sentences.append(
            f"At sigma {first['sigma']:.2g}, R² of what is read is {spell(first)} in {place(first)} and "
            f"{spell(last)} in {place(last)}."
        )
    return " ".join(sentences)
