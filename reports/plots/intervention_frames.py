"""The same frame under each intervention, layer by layer, beside the truth and the whole model's frame."""

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase

from framelens.analyses.depth import depth_of
from framelens.reports.drawing import style
from framelens.reports.drawing.kept_frames import LABELS, kept_frames
from framelens.reports.plots.samples import remark_on, show, to_pictures
from framelens.reports.runs import Run

needs = ("cut_frames",)
order = 11.5
title = "Frames under interventions"
caption = (
    "The last frame, generated from its true past and the same noise, under one intervention a picture. Cut: "
    "the layers from L on see the current frame only. Left out: layer L is skipped. Fetched once: the "
    "layers 0 to L keep what their attention read of the past at the first step, and all else is computed. "
    "Beneath each picture: its mean squared error. Error bars, null and all clips are in the figures below; "
    "a picture is one clip and one noise draw."
)
COLUMNS = 12
BESIDE = {"truth": "truth", "plain": "whole\nmodel"}
"""The pictures that every row begins with."""


@style.look
def draw(run: Run) -> tuple[Figure, pd.DataFrame]:
    """A block for each kept clip, a row for each intervention, a column for each layer."""
    data = {name: kept_frames(run, name) for name in LABELS if not run.missing((name,))}
    first = data[needs[0]]
    depth, places = depth_of(first), _columns(run, first)
    layers = {int(first.layer[place]): depth.label(place) for place in places}
    layers[int(first.layer[places[0]])] = f"L = {depth.label(places[0])}"
    planned = None if run.plan is None or run.plan.split is None else run.plan.split.encoder_layers
    if planned in layers:
        layers[planned] = f"planned\n{planned}"
    clips, columns = first.sizes["clip"], len(layers) + len(BESIDE)
    cell = 6.0 / columns * first.sizes["row"] / first.sizes["col"] + 0.16
    figure = style.canvas(height=0.55 + clips * (len(data) * cell + 0.4))
    tables = []
    for clip, part in enumerate(figure.subfigures(clips, 1, squeeze=False)[:, 0]):
        tables.append(_clip(part, {name: each.isel(clip=clip) for name, each in data.items()}, layers))
    frame = int(first.attrs["frame"])
    style.heading(figure, f"{title}: frame {frame}{remark_on(first)}", run, needs[0], interval=False)
    return figure, pd.concat(tables, ignore_index=True)


def _columns(run: Run, stored: xr.Dataset) -> list[int]:
    """At most COLUMNS places of layers, evenly spaced, and the planned cut with the one before it."""
    places = depth_of(stored).pick(COLUMNS)
    split = None if run.plan is None else run.plan.split
    if split is not None:
        planned = (split.encoder_layers - 1, split.encoder_layers)
        places += [int(place) for place in np.flatnonzero(np.isin(stored.layer, planned))]
    return sorted(set(places))


def _clip(part: FigureBase, data: dict[str, xr.Dataset], layers: dict[int, str]) -> pd.DataFrame:
    """The pictures of one clip; returns their errors."""
    grid = part.subplots(len(data), len(layers) + len(BESIDE), squeeze=False)
    rows = []
    for line, (name, stored) in zip(grid, data.items(), strict=True):
        pictures = as_pictures(stored)
        for axes, beside in zip(line, BESIDE, strict=False):
            show(axes, pictures[beside], was_given=False)
            error = mean_squared_error(stored[beside], stored.truth)
            if beside != "truth":
                axes.set_xlabel(spell_error(error), fontsize=6, labelpad=1)
                rows.append({"intervention": "none", "layer": np.nan, "mse": error})
        line[0].set_ylabel(LABELS[name].replace(", ", ",\n"), rotation=0, ha="right", va="center", fontsize=7)
        for axes, layer in zip(line[len(BESIDE) :], layers, strict=True):
            if layer not in stored.layer:
                _say_absent(axes)
                continue
            show(axes, pictures["generated"].sel(layer=layer), was_given=False)
            error = mean_squared_error(stored.generated.sel(layer=layer), stored.truth)
            axes.set_xlabel(spell_error(error), fontsize=6, labelpad=1)
            rows.append({"intervention": name.removesuffix("_frames"), "layer": layer, "mse": error})
    for axes, label in zip(grid[0], [*BESIDE.values(), *layers.values()], strict=True):
        axes.set_title(label, pad=3, fontsize=7)
    clip = int(next(iter(data.values()))["clip"])
    part.suptitle(f"clip {clip}", x=0.01, ha="left", fontsize=8)
    return pd.DataFrame(rows).drop_duplicates().assign(clip=clip)


def as_pictures(stored: xr.Dataset) -> dict[str, xr.DataArray]:
    """The frames of one clip in [-1, 1], (channel, row, col), generated ones by layer; latents as colours."""
    return to_pictures(stored, ("generated", *BESIDE))


def mean_squared_error(frame: xr.DataArray, truth: xr.DataArray) -> float:
    """Over all values of a frame."""
    return float(((frame - truth) ** 2).mean())


def spell_error(error: float) -> str:
    """Three digits after the point, which fit under a small picture."""
    return f"{error:.3f}" if error >= 0.0005 else "<0.001"


def _say_absent(axes: Axes) -> None:
    """A dash instead of a picture, for a layer that the intervention was not tried in."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, "–", ha="center", va="center", color="0.5", transform=axes.transAxes)


def words(table: pd.DataFrame) -> str:
    """The errors of the first clip: of the whole model, and cut from the first and from the last layer on."""
    sentences = []
    for clip, rows in table.groupby("clip"):
        whole = rows[rows["intervention"] == "none"]["mse"].iloc[0]
        cut = rows[rows["intervention"] == "cut"].sort_values("layer")
        first, last = cut.iloc[0], cut.iloc[-1]
        sentences.append(
            f"Clip {clip}: squared error {spell_error(whole)} by the whole model, "
            f"{spell_error(first['mse'])} cut from layer {int(first['layer'])} on, "
            f"{spell_error(last['mse'])} cut from layer {int(last['layer'])} on."
        )
    return " ".join(sentences)
