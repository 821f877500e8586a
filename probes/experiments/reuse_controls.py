"""Controls of reuse.py: features of another clip reused instead of this clip's, or none at all.

other_clip: features of sigma 1 with the same noise and another clip's past. none: the layers' update or the
cross-frame part left out (not of the whole residual stream, of which nothing would remain).
"""

import itertools

import torch
import xarray as xr

from framelens.probes.chunk import cross_frame, partial_passes, stored_features
from framelens.probes.chunk.cross_frame import CUT, STORED
from framelens.probes.chunk.features import DRAWS, Features
from framelens.probes.chunk.measures import Table
from framelens.probes.chunk.stored_features import serve_features
from framelens.probes.experiments.reuse import put_layer_velocities
from framelens.probes.run.costs import ChunkUse, Evaluations
from framelens.probes.run.probed_clip import ProbedClip
from framelens.probes.run.shape import RunShape

KINDS_OF: dict[str, tuple[str, ...]] = {"other_clip": stored_features.KINDS, "none": ("delta",)}
"""The sources, and how whole layers are replaced by features of each."""


def measure(probed_clip: ProbedClip) -> dict[str, xr.Dataset]:
    """`reuse_controls`, (clip, source, kind, layer): as `reuse` from the first step on."""
    probe, layers = probed_clip.chunk_probe(), probed_clip.layers
    table = Table(probe, source=list(KINDS_OF), kind=[*stored_features.KINDS, "cross"], layer=layers)
    table.put_plain()
    other = probe.features(past="other_clip")
    nothing = Features([torch.zeros_like(part) for part in other.residual], {})
    for source, features in zip(KINDS_OF, (other, nothing), strict=True):
        kinds = KINDS_OF[source]
        places = list(itertools.product(kinds, layers))
        conditions = [serve_features(probe, kind, layer, features.residual) for kind, layer in places]
        drawn = partial_passes.generate(probe, conditions, probe.noise)
        for (kind, layer), frames in zip(places, drawn, strict=True):
            table.put_frames(frames, source=source, kind=kind, layer=layer)
        put_layer_velocities(table, layers, kinds, features.of_other_draw(), source=source)
        modes = [cross_frame.through(probe, layer, STORED if features.cross else CUT) for layer in layers]
        _put_cross(table, torch.stack(modes), features, source)
    return {"reuse_controls": table.dataset()}


def evaluations(run: RunShape) -> Evaluations:
    """From each source every step and the velocities: layers after L for whole layers, all for attention."""
    whole = sum(map(len, KINDS_OF.values())) * DRAWS * run.behind
    attention = len(KINDS_OF) * run.rows(len(run.reached)) * run.layers
    passes = run.steps + run.levels
    return Evaluations(passes * (whole + attention), chunk=ChunkUse(other_past=True))


def _put_cross(table: Table, modes: torch.Tensor, features: Features, source: str) -> None:
    (probe,) = table.probes
    frames = cross_frame.generate(probe, modes, features.cross, first=0)
    velocities = cross_frame.velocities(probe, modes, features.of_other_draw().cross)
    for layer, drawn, velocity in zip(table.axes["layer"], frames, velocities, strict=True):
        table.put_frames(drawn, source=source, kind="cross", layer=layer)
        table.put_velocities(velocity, source=source, kind="cross", layer=layer)
