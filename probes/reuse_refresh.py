"""Features computed at every k-th step that serve the steps between: the kinds of reuse.py."""

import torch
import xarray as xr

from probes import _cross, _stored
from probes._cross import STORED
from probes._measures import Table
from probes.subject import Subject

EVERY = (2, 4)


def measure(subject: Subject) -> dict[str, xr.Dataset]:
    """`reuse_refresh`, (clip, kind, layer, refresh); empty for a sampler of a single step."""
    stage, layers = subject.stage(), subject.layers
    every = [k for k in (EVERY[:1] if subject.settings.quick else EVERY) if k <= stage.steps]
    if not every:
        return {}
    table = Table(stage, kind=[*_stored.KINDS, "cross"], layer=layers, refresh=every)
    table.put_plain()
    modes = torch.stack([_cross.through(stage, layer, STORED) for layer in layers])
    for k in every:
        for layer, cross in zip(layers, _cross.drawn_refreshed(stage, modes, k), strict=True):
            share = _stored.block_share(stage, layer + 1, lambda step, k=k: step % k == 0)
            by_kind = _stored.drawn_refreshed(stage, layer, k) | {"cross": cross}
            for kind, frames in by_kind.items():
                table.put_frames(frames, kind=kind, layer=layer, refresh=k)
                cost = {"block_share": 1.0 if kind == "cross" else share}
                table.put(cost, kind=kind, layer=layer, refresh=k)
    return {"reuse_refresh": table.dataset()}
