"""What a reader can choose on the page: a layer and a step; shown are its similarity and interventions.

data = choices(run, datasets(run, "cut", "leave_one_out", "reuse"))    # for the page's script, rounded
chooser_section(data)    # the controls; the script shows them, the static figures hold the same numbers
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import seaborn
import xarray as xr

from framelens.analyses.decision.kept import Context
from framelens.analyses.decision.repeated_features import TOKEN_COSINE
from framelens.analyses.depth import depth_of
from framelens.analyses.sample import per_film
from framelens.reports.drawing import colours, style
from framelens.reports.drawing.effects import (
    REUSED,
    absolute,
    context_of,
    has,
    kept_share,
    layer_keys,
    networks,
    plain,
)
from framelens.reports.drawing.tables import spell
from framelens.reports.page.markup import Html, fill, join
from framelens.reports.runs import Run

STEPS = 25
"""The most steps of a matrix; of more steps, evenly spaced ones are kept."""
SHADES = 32
CUTS = {
    "from": "attention to the past cut from this layer on",
    "only": "attention to the past cut in this layer",
    "up_to": "attention to the past cut up to this layer",
}
HEADS = ["intervention", "kept (velocity)", "kept (frame)", "error of the frame", "sharpness"]
WHOLE = "none: the whole model"
Row = tuple[str, str, int | None, list[str]]


def choices(run: Run, measured: Mapping[str, xr.Dataset]) -> dict[str, Any]:
    """Matrices of step similarity by layer, and rows of interventions by layer, as plain rounded values."""
    similarity, interventions = _similarity(run), _interventions(measured)
    names = dict(zip(similarity.get("keys", []), similarity.get("layers", []), strict=True))
    names |= {key: name for key, name in interventions.get("names", {}).items() if key not in names}
    layers = [{"key": key, "name": name} for key, name in names.items()]
    found = {"similarity": similarity, "interventions": interventions}
    return {"layers": layers} | {name: part for name, part in found.items() if part}


def _similarity(run: Run) -> dict[str, Any]:
    """Token cosine in thousandths, [layer][step * step_b], for each network; empty where not measured."""
    if run.missing(("step_similarity",)) or not run.has("step_similarity", TOKEN_COSINE):
        return {}
    matrices: dict[str, list] = {}
    every_network = run.read("step_similarity", TOKEN_COSINE)[TOKEN_COSINE]
    for network in networks(every_network):
        stored = every_network.sel(network=network, drop=True)
        kept_steps = np.unique(
            np.linspace(0, stored.sizes["step"] - 1, min(STEPS, stored.sizes["step"])).astype(int)
        )
        mean = per_film(stored).mean(("clip", "frame")).isel(step=kept_steps, step_b=kept_steps)
        mean = mean.transpose("layer", "step", "step_b")
        matrices[network] = [
            [None if np.isnan(value) else round(1000 * float(value)) for value in matrix.ravel()]
            for matrix in mean.values
        ]
    depth = depth_of(mean)
    every = [value for layers in matrices.values() for layer in layers for value in layer]
    palette = [
        "#" + "".join(f"{round(255 * channel):02x}" for channel in colour)
        for colour in seaborn.color_palette(colours.SEQUENTIAL, SHADES)
    ]
    return {
        "layers": [depth.name(int(position)) for position in depth.positions],
        "keys": layer_keys(mean),
        "steps": [int(step) for step in mean.step.values],
        "sigma": [round(float(sigma), 3) for sigma in mean.sigma.values],
        "names": {network: style.WORDS.get(network, network) for network in matrices},
        "values": matrices,
        "low": min(value for value in every if value is not None),
        "palette": palette,
    }


def _interventions(measured: Mapping[str, xr.Dataset]) -> dict[str, Any]:
    """Rows by layer, [step or None, cells], as text, and the starts that can be chosen."""
    data = {name: measured[name] for name in ("cut", "leave_one_out", "reuse") if name in measured}
    if not data:
        return {}
    context = context_of(data)
    layers: dict[str, list] = {}
    for key, name, start, cells in _rows(data, context):
        layers.setdefault(key, []).append([start, [name, *cells]])
    first = next(iter(data.values()))
    names = {}
    for stored in data.values():
        depth = depth_of(stored)
        names |= {key: depth.name(at) for at, key in enumerate(layer_keys(stored))}
    ordered = sorted(layers, key=lambda key: int(key.split("-")[-1]))
    starts = {}
    if "reuse" in data:
        sigmas = data["reuse"].start_sigma.values
        steps = (str(int(step)) for step in data["reuse"].start.values)
        starts = {step: f"{float(sigma):.3g}" for step, sigma in zip(steps, sigmas, strict=True)}
    error, sharp = (plain(first, variable) for variable in ("mse", "sharpness"))
    whole = "–" if context is None else "1.00"
    base = [WHOLE, whole, whole, _number(error, True), _number(sharp, False)]
    rows = {key: layers[key] for key in ordered}
    return {"heads": HEADS, "whole": base, "layers": rows, "names": names, "starts": starts}


def _rows(data: Mapping[str, xr.Dataset], context: Context | None) -> Iterator[Row]:
    if "cut" in data:
        for where, name in CUTS.items():
            if has(data["cut"], where=where):
                yield from _layers(data["cut"], context, name, None, where=where)
    if "leave_one_out" in data:
        yield from _layers(data["leave_one_out"], context, "this layer left out", None)
    if "reuse" in data:
        for kind in map(str, data["reuse"].kind.values):
            for start in map(int, data["reuse"].start.values):
                name = f"{REUSED.get(kind, kind)}, reused up to this layer"
                yield from _layers(data["reuse"], context, name, start, kind=kind, start=start)


def _layers(
    stored: xr.Dataset, context: Context | None, name: str, served_from: int | None, **where: Any
) -> Iterator[Row]:
    """One row per layer of an intervention, with the values that were measured."""
    shares: list[xr.Dataset | None] = [None, None]
    if context is not None:
        # Velocities are measured with reuse from the first step only.
        velocity = None if served_from else kept_share(context, stored, "velocity", **where)
        shares = [velocity, kept_share(context, stored, "frame", **where)]
    errors, sharp = (absolute(stored, variable, **where) for variable in ("mse", "sharpness"))
    for place, key in enumerate(layer_keys(stored)):
        values = [*shares, errors, sharp]
        here = [None if value is None else value.isel(layer=place) for value in values]
        cells = ["–" if value is None else _number(value, at == 2) for at, value in enumerate(here)]
        if any(cell != "–" for cell in cells):
            yield key, name, served_from, cells


def _number(value: xr.Dataset, is_error: bool) -> str:
    mean = float(value["mean"])
    return "–" if np.isnan(mean) else spell(value, 4 if is_error and abs(mean) < 0.1 else 2)


def chooser_section(data: Mapping[str, Any], frames: Sequence[Html] = ()) -> list[Html]:
    """The controls and the elements that the script fills; empty where there is nothing to choose.

    `frames` are pictures of which the script shows those of the chosen layer.
    """
    if not data["layers"]:
        return []
    similarity, interventions = data.get("similarity"), data.get("interventions")
    parts = [
        fill('<section id="chooser" hidden>\n<h2>Choose a layer</h2>'),
        fill('<p class="controls"><label>Layer <select id="choose-layer"></select></label>'),
    ]
    if interventions and len(interventions["starts"]) > 1:
        parts.append(fill('<label>Features computed at step <select id="choose-start"></select></label>'))
    if similarity:
        parts.append(fill('<label>Reference step <select id="choose-step"></select></label>'))
    parts.append(fill("</p>"))
    if interventions:
        parts += [
            fill('<h3 id="interventions-title">Interventions</h3>'),
            fill('<div class="scroll" tabindex="0"><table class="numbers" id="interventions"></table></div>'),
        ]
    parts += frames
    if similarity:
        maps = (
            fill(
                '<figure class="map"><figcaption>{}</figcaption><span class="rows">{}</span>'
                '<canvas tabindex="0" role="img" data-network="{}"></canvas>'
                '<span class="columns">{}</span></figure>',
                name, _axis(similarity, "reference step", True), network, _axis(similarity, "other step"),
            )
            for network, name in similarity["names"].items()
        )  # fmt: skip
        parts += [
            fill('<h3 id="similarity-title">Similarity between steps</h3>'),
            fill(
                '<p class="quiet">Token cosine of the features at two steps.</p>',
            ),
            fill(
                '<p class="scale">token cosine <span>{}</span>'
                '<i style="background:linear-gradient(90deg,{})"></i>'
                "<span>1</span>{}</p>",
                f"{similarity['low'] / 1000:.2f}",
                ",".join(similarity["palette"]),
                " (grey: not measured)" if _has_gaps(similarity) else "",
            ),
            fill('<div class="maps">{}</div>', join(maps, "")),
            fill('<p class="readout" id="similarity-readout" aria-live="polite"></p>'),
        ]
    return [*parts, fill("</section>")]


def _axis(similarity: Mapping[str, Any], name: str, is_upwards: bool = False) -> Html:
    """The name of an axis of the matrices between its first and its last step; rows begin at the top."""
    steps, sigmas = similarity["steps"], similarity["sigma"]
    first, last = (f"{steps[at]} (sigma {sigmas[at]:.2g})" for at in ((-1, 0) if is_upwards else (0, -1)))
    return fill("<span>{}</span><span>{}</span><span>{}</span>", first, name, last)


def _has_gaps(similarity: Mapping[str, Any]) -> bool:
    """Whether some value of a matrix was not measured."""
    return any(None in matrix for matrices in similarity["values"].values() for matrix in matrices)
