"""Features over denoising steps: three principal components as colours on the token grid."""

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float
from matplotlib.figure import Figure

from framelens.analyses.depth import depth_of
from framelens.records.damage import NotShown
from framelens.reports.drawing import style
from framelens.reports.plots.samples import pictures as pictures_of
from framelens.reports.plots.samples import read_samples, show
from framelens.reports.runs import Run

needs = ("feature_pca",)
order = 7
title = "Principal components over denoising steps"
caption = (
    "Red, green and blue are the first three principal components of the features after a layer, on the "
    "grid of tokens, for the last probed frame of the first clip. The components are fitted on all shown "
    "steps of that layer together, so colours may be compared along a row, not between rows. Beside each "
    "row: the share of the variance that the three carry, and the frame as it was generated."
)
ROWS = 8


@style.look
def draw(run: Run) -> tuple[Figure, pd.DataFrame]:
    """Rows are layers, columns the kept steps; trained network."""
    stored = run.read("feature_pca", network="trained").isel(clip=0, frame=-1)
    stored = stored.isel(layer=depth_of(stored).pick(ROWS))
    depth = depth_of(stored)
    steps = [int(step) for step in stored.pca_step]
    rows, columns = token_grid(run.geometry, stored.sizes["token"])

    frame, clip = int(stored["frame"]), int(stored["clip"])
    beside = read_generated(run, frame + stored.sizes["token"] // (rows * columns) - 1)
    cell = min(0.95, 5.8 / (len(steps) + len(beside)))
    figure = style.canvas(height=0.95 + cell * rows / columns * len(depth.layers) + 0.12 * len(depth.layers))
    grid = figure.subplots(len(depth.layers), len(beside) + len(steps), squeeze=False)
    table = []
    for place, line in enumerate(grid):
        for axes, picture in zip(line, beside, strict=False):
            show(axes, picture, was_given=False)
        layer = stored.isel(layer=place)
        components = layer.components.transpose("pca_step", "token", "component")
        pictures = as_colours(components.values, rows, columns)
        for axes, picture in zip(line[len(beside) :], pictures, strict=True):
            axes.imshow(picture, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        share = float(layer.explained.sum("component"))
        line[0].set_ylabel(f"{depth.short(place)}\n{share:.0%}", rotation=0, ha="right", va="center")
        place_of = {"layer": depth.layers[place], "group": depth.groups[place]}
        table += [place_of | {"component": i, "explained": float(v)} for i, v in enumerate(layer.explained)]
    titles = [*["generated\nframe"] * len(beside), *(f"step {s}\nsigma {run.sigma(s):.2f}" for s in steps)]
    for axes, text in zip(grid[0], titles, strict=True):
        axes.set_title(text)
    style.heading(figure, f"{title}, frame {frame} of clip {clip}", run, "feature_pca", interval=False)
    return figure, pd.DataFrame(table)


def read_generated(run: Run, frame: int) -> list[xr.DataArray]:
    """That frame of the first clip as it was generated, (channel, row, col); none without samples."""
    if run.missing(("samples",)):
        return []
    films = pictures_of(*read_samples(run))
    film = films[run.mode("feature_pca") or "truth"]
    return [film.sel(frame=frame)] if frame in film.frame else []


def token_grid(geometry: dict, tokens: int) -> tuple[int, int]:
    """Rows and columns of one frame's tokens; NotShown where the tokens are not whole frames."""
    patch = geometry["patch"]
    tall, wide = patch if isinstance(patch, (list, tuple)) else (patch, patch)
    rows, columns = geometry["height"] // tall, geometry["width"] // wide
    if tokens % (rows * columns):
        raise NotShown(
            f"features of whole frames, but feature_pca has {tokens} tokens and the manifest's geometry "
            f"gives {rows} x {columns} per frame"
        )
    return rows, columns


def as_colours(
    components: Float[np.ndarray, "steps tokens 3"], rows: int, columns: int
) -> Float[np.ndarray, "steps rows columns 3"]:
    """Components in [-1, 1] as colours in [0, 1]; of a chunk of frames, the last frame."""
    last = components[:, -rows * columns :]
    return np.clip((last + 1) / 2, 0, 1).reshape(len(last), rows, columns, 3)


def words(table: pd.DataFrame) -> str:
    """The range over layers of the variance that the components carry, as a sentence."""
    share = table.groupby(["group", "layer"], dropna=False)["explained"].sum()
    return (
        f"The three components carry between {share.min():.0%} and {share.max():.0%} of the variance over "
        "the shown layers. The table holds these shares; the pictures' pixels are in feature_pca.nc."
    )
