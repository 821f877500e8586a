"""Features of one step reused in all later steps: of how many layers, and from which step on.

Four kinds, for layers 0 to L. hard: the whole residual stream after L. delta: the layers' summed update,
added to the current embedding. cross: only the cross-frame part of attention, all else computed. cross_only:
the same, without cross-frame attention above L, as in a separated model with an encoder of L + 1 layers.

Velocities reuse features from sigma 1 of the other noise draw: features of the same noise would reveal the
clean frame of a partly noised one.
"""

import itertools

import torch
import xarray as xr

from framelens.probes.chunk import cross_frame, partial_passes, stored_features
from framelens.probes.chunk.cross_frame import CUT, LIVE, STORED
from framelens.probes.chunk.features import DRAWS, Features
from framelens.probes.chunk.kept_frames import KeptFrames
from framelens.probes.chunk.measures import Table
from framelens.probes.chunk.stored_features import serve_features
from framelens.probes.run.costs import ChunkUse, Evaluations
from framelens.probes.run.probed_clip import ProbedClip
from framelens.probes.run.shape import RunShape

ABOVE = {"cross": LIVE, "cross_only": CUT}
"""Cross-frame attention above L."""


def measure(probed_clip: ProbedClip) -> dict[str, xr.Dataset]:
    """`reuse`, (clip, kind, layer, start), with velocities by sigma, from features of sigma 1.

    `reuse_frames` has frames of the kind cross, from the first start on, of the first clips.
    """
    probe, layers, starts = probed_clip.chunk_probe(), probed_clip.layers, probed_clip.settings.start_steps
    table = Table(probe, kind=[*stored_features.KINDS, *ABOVE], layer=layers, start=starts)
    table.put_plain()
    for start in starts:
        _put_layers(table, layers, start)
    places = [{"kind": kind, "layer": layer} for kind in ABOVE for layer in layers]
    modes = torch.stack([cross_frame.through(probe, p["layer"], STORED, ABOVE[p["kind"]]) for p in places])
    kept = KeptFrames("reuse", probed_clip.index, probe, layers, start=starts[0])
    for start in starts:
        stored = probe.features(start).cross
        for place, frames in zip(places, cross_frame.generate(probe, modes, stored, start + 1), strict=True):
            table.put_frames(frames, **place, start=start)
            table.put({"block_share": 1.0}, **place, start=start)
            if start == starts[0] and place["kind"] == "cross":
                kept.put(frames, place["layer"])
    other = probe.features().of_other_draw()
    for place, velocity in zip(places, cross_frame.velocities(probe, modes, other.cross), strict=True):
        table.put_velocities(velocity, **place)
    put_layer_velocities(table, layers, stored_features.KINDS, other)
    sigmas = [probe.sigma(start) for start in starts]
    return {"reuse": table.dataset(start_sigma=("start", sigmas))} | kept.datasets()


def evaluations(run: RunShape) -> Evaluations:
    """The steps after each start and the velocities: layers after L for whole layers, all for attention."""
    starts = run.settings.start_steps
    passes = sum(run.steps - start - 1 for start in starts) + run.levels
    whole = len(stored_features.KINDS) * DRAWS * run.behind
    attention = run.rows(len(ABOVE) * len(run.reached)) * run.layers
    return Evaluations(passes * (whole + attention), chunk=ChunkUse(features=frozenset({0, *starts})))


def _put_layers(table: Table, layers: list[int], start: int) -> None:
    (probe,) = table.probes
    places = list(itertools.product(stored_features.KINDS, layers))
    residual = probe.features(start).residual
    conditions = [serve_features(probe, kind, layer, residual) for kind, layer in places]
    drawn = partial_passes.generate(probe, conditions, probe.path[start + 1], start + 1)
    for (kind, layer), frames in zip(places, drawn, strict=True):
        table.put_frames(frames, kind=kind, layer=layer, start=start)
        share = stored_features.block_share(probe, layer + 1, lambda step: step <= start)
        table.put({"block_share": share}, kind=kind, layer=layer, start=start)


def put_layer_velocities(
    table: Table, layers: list[int], kinds: tuple[str, ...], features: Features, **place: str
) -> None:
    """Velocities with whole layers replaced by these features."""
    (probe,), places = table.probes, list(itertools.product(kinds, layers))
    conditions = [serve_features(probe, kind, layer, features.residual) for kind, layer in places]
    for (kind, layer), velocity in zip(places, partial_passes.velocities(probe, conditions), strict=True):
        table.put_velocities(velocity, kind=kind, layer=layer, **place)
