"""The similarity of one middle layer's features between denoising steps, as one matrix (§4.1)."""

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from framelens.analyses.depth import depth_of
from framelens.analyses.places import even_places
from framelens.analyses.sample import per_film
from framelens.reports.drawing import colours, style
from framelens.reports.drawing.tables import tidy
from framelens.reports.runs import Run

number = ""
name = "similarity"
needs = ("step_similarity",)
title = "Similarity between denoising steps at a middle layer"
published = (
    "50 x 50 steps at layer 15 of 30: above 0.95 throughout; the last 10 steps against the first 40 about 0.8"
)
STEPS = 50
"""As many as the paper shows."""
LATE = 5
"""The paper compares the last fifth of the steps with the others."""


@style.look
def draw(run: Run) -> tuple[Figure, pd.DataFrame]:
    """The raw cosine, mean over clips and frames, of all steps of the run, or of 50 where it has more."""
    stored = run.read("step_similarity", "cosine", network="trained")
    depth = depth_of(stored)
    layer = depth.blocks[len(depth.blocks) // 2]
    matrix = per_film(stored.cosine.isel(layer=layer)).mean(("clip", "frame")).transpose("step", "step_b")
    shown = even_places(matrix.sizes["step"], STEPS)
    matrix = matrix.isel(step=shown, step_b=shown)

    figure = style.canvas(height=4.4, width=5.0)
    axes = figure.subplots()
    image = axes.imshow(matrix, vmin=min(float(matrix.min()), 0.75), vmax=1, cmap=colours.SEQUENTIAL)
    ticks = np.arange(0, len(shown), -(-len(shown) // 6))
    labels = [int(matrix.step[at]) for at in ticks]
    axes.set_xticks(ticks, labels)
    axes.set_yticks(ticks, labels)
    axes.set(xlabel="denoising step (0 is the noisiest)", ylabel="denoising step")
    figure.colorbar(image, ax=axes, label="cosine similarity")
    style.heading(figure, f"{title}\n{extent(matrix, depth.name(layer), len(depth.blocks))}", run, needs[0],
                  interval=False)  # fmt: skip
    table = tidy(matrix.rename("cosine").to_dataset().reset_coords(drop=True))
    table.attrs["extent"] = extent(matrix, depth.name(layer), len(depth.blocks))
    return figure, table


def extent(matrix: xr.DataArray, layer: str, layers: int) -> str:
    """The layer and the steps that are shown, and that the run has fewer steps than the paper's."""
    steps = matrix.sizes["step"]
    fewer = f"; the paper has {STEPS} steps, this run {steps}" if steps < STEPS else ""
    return f"{layer} (of {layers}, from 0), {steps} x {steps} steps{fewer}"


def words(table: pd.DataFrame) -> str:
    """The least similarity of two steps, and that of the last fifth of the steps with the others."""
    matrix = table.pivot(index="step", columns="step_b", values="cosine").to_numpy()
    late = max(1, len(matrix) // LATE)
    between = matrix[-late:, :-late].mean() if len(matrix) > 1 else np.nan
    last = "the last step" if late == 1 else f"the last {late} steps"
    extent = table.attrs["extent"]
    return f"{extent}: at least {matrix.min():.2f}; {last} against the others {between:.2f}"
