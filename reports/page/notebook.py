"""The moving parts of a page in a notebook: the player, films of one's own, the map of attention.

    show_player(run)                                     # the truth and what the model generated, in a loop
    show_films({"truth": truth[0], "edited": edited[0]}) # videos [frame, channel, row, column] in [-1, 1]
    show_attention(run)                                  # choose a patch, see where it looks

Each is HTML in a frame of its own, so that its style stays inside. Where a program shows no HTML, it is a
plain picture.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from framelens.analyses.depth import depth_of
from framelens.records.damage import NotShown
from framelens.reports.drawing import colours, style
from framelens.reports.page.attention import ROWS, attention_section
from framelens.reports.page.film import Film, to_pixels
from framelens.reports.page.markup import Html, fill, join
from framelens.reports.page.page import document
from framelens.reports.page.player import film_figure, player
from framelens.reports.plots import samples
from framelens.reports.runs import Run

AXES = ("frame", "channel", "row", "col")
LAYERS = 4
"""Layers of the plain picture of attention."""
FIT = "this.style.height=this.contentDocument.documentElement.scrollHeight+'px'"


class Shown:
    """What a notebook shows: HTML in a frame, and a picture for programs that show none."""

    def __init__(self, name: str, parts: list[Html], picture: Figure, height: int):
        self.name, self.picture = name, picture
        self.page, self.height = document(name, parts), height

    def __repr__(self) -> str:
        """The name of what is shown."""
        return f"<Shown {self.name}>"

    def _repr_html_(self) -> Html:
        """The HTML in a frame of the width of the cell; the frame takes the height of its content."""
        return fill(
            '<iframe srcdoc="{}" title="{}" onload="{}" style="width:100%;height:{}px;border:0"></iframe>',
            str(self.page), self.name, FIT, self.height,
        )  # fmt: skip

    def _repr_png_(self) -> bytes:
        """The plain picture."""
        return style.Picture._repr_png_(self.picture)


def show_player(run: Run) -> Shown:
    """The clips of a run in a loop: the truth, and what the model generated; NotShown without samples."""
    parts = player(run)
    if not parts:
        raise NotShown(f"samples, which {run.folder} did not measure")
    return Shown("Generated videos", parts, samples.draw(run)[0], 460)


def show_films(videos: Mapping[str, Any], given: int = 0) -> Shown:
    """Videos in a loop, one beside the other; the first `given` frames have a dark border.

    A video is an array or a tensor on the CPU, [frame, channel, row, column] in [-1, 1]; ValueError for
    another shape.
    """
    arrays = {name: np.asarray(video, np.float32) for name, video in videos.items()}
    wrong = {name: array.shape for name, array in arrays.items() if array.ndim != len(AXES)}
    if wrong or not arrays:
        raise ValueError(f"expected videos with the axes {', '.join(AXES)}, got {wrong or 'none'}")
    labelled = {name: xr.DataArray(array, dims=AXES) for name, array in arrays.items()}
    films = [
        Film(name, to_pixels(video), np.arange(video.sizes["frame"]) < given)
        for name, video in labelled.items()
    ]
    figures = join(film_figure(0, film, film.sprite()) for film in films)
    parts = [fill('<section class="player"><div class="films">{}</div></section>', figures)]
    return Shown("Films", parts, _strips(labelled, given), 240)


def show_attention(run: Run) -> Shown:
    """The map of attention, in which a patch is chosen; NotShown without attention_rows."""
    parts = attention_section(run)
    if not parts:
        raise NotShown(f"{ROWS}, which {run.folder} did not measure")
    return Shown("Attention to earlier frames", parts, draw_attention(run), 640)


@style.look
def _strips(videos: Mapping[str, xr.DataArray], given: int) -> Figure:
    """A row of frames for each video."""
    frames = max(video.sizes["frame"] for video in videos.values())
    figure = style.canvas(height=0.2 + 0.8 * len(videos))
    grid = figure.subplots(len(videos), frames, squeeze=False)
    for line, (name, video) in zip(grid, videos.items(), strict=True):
        for frame, axes in enumerate(line):
            if frame < video.sizes["frame"]:
                samples.show(axes, video.isel(frame=frame), frame < given)
            else:
                axes.set_axis_off()
        line[0].set_ylabel(name, rotation=0, ha="right", va="center")
    return figure


@style.look
def draw_attention(run: Run, clip: int = 0, step: int = 0) -> Figure:
    """Attention of the middle patch over uniform attention, mean over heads, by layer and earlier frame."""
    rows = run.read(ROWS).isel(clip=clip, step=step)
    chosen = rows.isel(layer=depth_of(rows).pick(LAYERS), query=rows.sizes["query"] // 2)
    depth = depth_of(chosen)
    ratio = (chosen.mass * chosen["keys"]).mean("head").transpose("layer", "frame", "token")
    columns = run.geometry["width"] // run.geometry["patch"]
    figure = style.canvas(height=0.4 + 0.9 * ratio.sizes["layer"])
    grid = figure.subplots(*ratio.shape[:2], squeeze=False)
    for place, line in enumerate(grid):
        for frame, axes in enumerate(line):
            tokens = ratio.values[place, frame].reshape(-1, columns)
            norm = LogNorm(1 / 8, 8)
            image = axes.imshow(np.clip(tokens, 1 / 8, 8), cmap=colours.DIVERGING, norm=norm)
            axes.set(xticks=[], yticks=[])
        line[0].set_ylabel(depth.short(place), rotation=0, ha="right", va="center")
    for axes, frame in zip(grid[0], chosen.frame.values, strict=True):
        axes.set_title(f"frame {int(frame)}")
    bar = figure.colorbar(image, ax=grid, label="attention / uniform", shrink=0.7)
    bar.set_ticks([1 / 8, 1, 8], labels=["1/8", "1", "8"], minor=False)
    bar.set_ticks([], minor=True)
    return figure
