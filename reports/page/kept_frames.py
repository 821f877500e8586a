"""What interventions do to the picture: films under the planned cut, and the frame of the chosen layer.

films = planned_films(run, clip)        # for the player; empty without a plan, or of a clip that has none
frames = layer_frames(run)              # for the chooser: pieces of HTML, and the layers of each picture
"""

import base64
from dataclasses import dataclass, field

import numpy as np
import xarray as xr

from framelens.analyses.depth import depth_of
from framelens.reports.drawing.effects import layer_keys
from framelens.reports.drawing.kept_frames import LABELS, kept_frames
from framelens.reports.page.film import Film, to_pixels
from framelens.reports.page.markup import Html, fill, join
from framelens.reports.plots.intervention_frames import BESIDE, as_pictures
from framelens.reports.plots.samples import latents_as_colours, remark_on
from framelens.reports.plots.x0_lens import as_pictures as as_read
from framelens.reports.runs import Run

FILMS, LENS = "cut_films", "x0_lens_frames"
MOST_LAYERS = 64
"""In one picture, whose width a file format limits."""
PLANNED = "the same, cut from layer {} on (as planned)"
MOST_BYTES = 1_500_000
"""Of the pictures of the chooser; clips that would exceed it are left out, but for the first."""
EARLY = "the same, cut from layer {} on (one layer too early)"


@dataclass(frozen=True)
class LayerFrames:
    """Pictures of the chooser, hidden without its script: each has one frame for each of its layers."""

    layers: dict[str, list[str]] = field(default_factory=dict)
    """The names of the layers in links, by dataset."""
    parts: list[Html] = field(default_factory=list)


def planned_films(run: Run, clip: int) -> list[Film]:
    """The clip as generated on its own, cut at the planned layer and cut one layer too early."""
    split = None if run.plan is None else run.plan.split
    if split is None or run.missing((FILMS, "samples")):
        return []
    stored = kept_frames(run, FILMS)
    if clip >= stored.sizes["clip"]:
        return []
    truth = run.read("samples", "truth").truth
    wanted = {split.encoder_layers: PLANNED, split.encoder_layers - 1: EARLY}
    return [
        _film(stored, truth, clip, layer, title.format(layer))
        for layer, title in wanted.items()
        if layer in stored.layer
    ]


def _film(stored: xr.Dataset, truth: xr.DataArray, clip: int, layer: int, title: str) -> Film:
    """The given frames of the truth, then those that were generated under the cut."""
    made, true = stored.video.sel(layer=layer, drop=True).isel(clip=clip), truth.isel(clip=clip)
    parts = [true.sel(frame=true.frame < int(made.frame[0])), made]
    whole = xr.concat([part.drop_vars("clip", errors="ignore") for part in parts], "frame")
    if stored.attrs.get("latent"):
        whole, title = latents_as_colours({"film": whole}, true)["film"], title + remark_on(stored)
    return Film(title, to_pixels(whole), np.asarray(whole.frame.values < int(made.frame[0])))


def layer_frames(run: Run) -> LayerFrames:
    """What the chooser shows of a layer: frames under interventions, and what is read from the layer."""
    parts = (_show_interventions(run), _show_read(run))
    layers = {name: keys for part in parts for name, keys in part.layers.items()}
    return LayerFrames(layers, [html for part in parts for html in part.parts])


def _show_interventions(run: Run) -> LayerFrames:
    """The truth and the whole model's frame beside one picture for each intervention, for each kept clip."""
    data = {name: kept_frames(run, name) for name in LABELS if not run.missing((name,))}
    if not data:
        return LayerFrames()
    data = {name: stored.isel(layer=depth_of(stored).pick(MOST_LAYERS)) for name, stored in data.items()}
    clips, size = [], 0
    for clip in range(next(iter(data.values())).sizes["clip"]):
        figures = _figures({name: stored.isel(clip=clip) for name, stored in data.items()})
        size += sum(map(len, figures))
        if clips and size > MOST_BYTES:
            break
        clips.append(fill('<p class="quiet">clip {}</p><div class="films">{}</div>', clip, join(figures)))
    first = next(iter(data.values()))
    parts = [fill("<h3>Frame {}{}</h3>", int(first.attrs["frame"]), remark_on(first)), *clips]
    return LayerFrames({name: layer_keys(stored) for name, stored in data.items()}, parts)


def _show_read(run: Run) -> LayerFrames:
    """A picture for each step of what a linear map reads from a layer."""
    if run.missing((LENS,)):
        return LayerFrames()
    stored = kept_frames(run, LENS).isel(clip=0)
    pictures, keys = as_read(stored), layer_keys(stored)
    labels = [f"sigma {float(sigma):.2g}" for sigma in stored.sigma.values]
    figures = [
        _figure(f"{LENS}-{at}", label, pictures["read"].isel(step=at)) for at, label in enumerate(labels)
    ]
    part = fill(
        '<div class="frames"><h3>Frame {}, read from the tokens of the layer{}</h3>\n'
        '<div class="films">{}</div></div>',
        int(stored.attrs["frame"]),
        remark_on(stored),
        join(figures),
    )
    return LayerFrames({f"{LENS}-{at}": keys for at in range(len(labels))}, [part])


def _figures(data: dict[str, xr.Dataset]) -> list[Html]:
    """The pictures of one clip."""
    pictures = {name: as_pictures(stored) for name, stored in data.items()}
    first = next(iter(pictures.values()))
    beside = [_figure(name, label, first[name].expand_dims("layer")) for name, label in BESIDE.items()]
    return beside + [_figure(name, LABELS[name], shown["generated"]) for name, shown in pictures.items()]


def _figure(name: str, label: str, frames: xr.DataArray) -> Html:
    """One picture with the frames of all its layers side by side, of which one is in view."""
    label = label.replace("\n", " ")
    film = Film(label, to_pixels(frames.rename(layer="frame")), np.zeros(frames.sizes["layer"], bool))
    height, width = film.shape
    picture = base64.b64encode(film.sprite()).decode("ascii")
    return fill(
        '<figure data-frames="{}" data-label="{}"><div class="film still" role="img" aria-label="{}" '
        'style="--frames:{};aspect-ratio:{}/{};max-width:{}px;background-image:url(data:image/webp;base64,{})"></div>'
        "<figcaption>{}</figcaption></figure>",
        name, label, label, len(film.frames), width, height, max(width, 130), picture, label,
    )  # fmt: skip
