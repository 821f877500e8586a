"""Features computed at one step that serve all later ones: how deep, and from when.

Four kinds, for layers 0 to L. hard: the whole residual stream behind L. delta: the layers' summed update,
added to the current embedding. cross: the cross-frame part of attention alone, all else live. cross_only: the
same, and no cross-frame attention above L, as in a separated model with an encoder of L + 1 layers.

Velocities are served from sigma 1 of the other noise draw: features that have seen the noise would give away
the frame behind a partly noised one.
"""

import torch
import xarray as xr

from framelens.probes.chunk import cross_frame, stored_features
from framelens.probes.chunk.cross_frame import CUT, LIVE, STORED
from framelens.probes.chunk.measures import Table
from framelens.probes.chunk.stage import DRAWS, Features
from framelens.probes.run.costs import ChunkUse, Evaluations
from framelens.probes.run.shape import RunShape
from framelens.probes.run.subject import Subject

ABOVE = {"cross": LIVE, "cross_only": CUT}
"""Cross-frame attention above L."""


def measure(subject: Subject) -> dict[str, xr.Dataset]:
    """`reuse`, (clip, kind, layer, start), with velocities served from sigma 1 by sigma."""
    stage, layers, starts = subject.stage(), subject.layers, subject.settings.start_steps
    table = Table(stage, kind=[*stored_features.KINDS, *ABOVE], layer=layers, start=starts)
    table.put_plain()
    for start in starts:
        _put_layers(table, layers, start)
    places = [{"kind": kind, "layer": layer} for kind in ABOVE for layer in layers]
    modes = torch.stack([cross_frame.through(stage, p["layer"], STORED, ABOVE[p["kind"]]) for p in places])
    for start in starts:
        stored = stage.features(start).cross
        for place, frames in zip(places, cross_frame.drawn(stage, modes, stored, start + 1), strict=True):
            table.put_frames(frames, **place, start=start)
            table.put({"block_share": 1.0}, **place, start=start)
    other = stage.features().of_other_draw()
    for place, velocity in zip(places, cross_frame.velocities(stage, modes, other.cross), strict=True):
        table.put_velocities(velocity, **place)
    put_layer_velocities(table, layers, stored_features.KINDS, other)
    return {"reuse": table.dataset(start_sigma=("start", [stage.sigma(start) for start in starts]))}


def evaluations(run: RunShape) -> Evaluations:
    """The steps after each start and the velocities: layers after L for whole layers, all for attention."""
    starts = run.settings.start_steps
    passes = sum(run.steps - start - 1 for start in starts) + run.levels
    whole = len(stored_features.KINDS) * DRAWS * run.behind
    attention = run.rows(len(ABOVE) * len(run.reached)) * run.layers
    return Evaluations(passes * (whole + attention), chunk=ChunkUse(features=frozenset({0, *starts})))


def _put_layers(table: Table, layers: list[int], start: int) -> None:
    (stage,) = table.stages
    for layer in layers:
        share = stored_features.block_share(stage, layer + 1, lambda step: step <= start)
        for kind, frames in stored_features.drawn(stage, layer, stage.features(start), start + 1).items():
            table.put_frames(frames, kind=kind, layer=layer, start=start)
            table.put({"block_share": share}, kind=kind, layer=layer, start=start)


def put_layer_velocities(
    table: Table, layers: list[int], kinds: tuple[str, ...], features: Features, **place: str
) -> None:
    """Velocities of whole layers served from these features."""
    for layer in layers:
        by_kind = stored_features.velocities(table.stages[0], layer, features)
        for kind in kinds:
            table.put_velocities(by_kind[kind], kind=kind, layer=layer, **place)
