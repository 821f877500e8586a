"""Features computed at every k-th step that serve the steps between: the kinds of reuse.py."""

import torch
import xarray as xr

from framelens.probes.chunk import cross_frame, stored_features
from framelens.probes.chunk.cross_frame import STORED
from framelens.probes.chunk.measures import Table
from framelens.probes.run.subject import Subject

EVERY = (2, 4)


def measure(subject: Subject) -> dict[str, xr.Dataset]:
    """`reuse_refresh`, (clip, kind, layer, refresh); empty for a sampler of a single step."""
    stage, layers = subject.stage(), subject.layers
    every = [k for k in (EVERY[:1] if subject.settings.quick else EVERY) if k <= stage.steps]
    if not every:
        return {}
    table = Table(stage, kind=[*stored_features.KINDS, "cross"], layer=layers, refresh=every)
    table.put_plain()
    modes = torch.stack([cross_frame.through(stage, layer, STORED) for layer in layers])
    for k in every:
        for layer, cross in zip(layers, cross_frame.drawn_refreshed(stage, modes, k), strict=True):
            share = stored_features.block_share(stage, layer + 1, lambda step, k=k: step % k == 0)
            by_kind = stored_features.drawn_refreshed(stage, layer, k) | {"cross": cross}
            for kind, frames in by_kind.items():
                table.put_frames(frames, kind=kind, layer=layer, refresh=k)
                cost = {"block_share": 1.0 if kind == "cross" else share}
                table.put(cost, kind=kind, layer=layer, refresh=k)
    return {"reuse_refresh": table.dataset()}
