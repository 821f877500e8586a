"""Features computed at every k-th step and reused in the steps between: the kinds of reuse.py."""

import itertools
from math import ceil

import torch
import xarray as xr

from framelens.probes.chunk import cross_frame, stored_features
from framelens.probes.chunk.chunk_probe import DRAWS
from framelens.probes.chunk.cross_frame import STORED
from framelens.probes.chunk.measures import Table
from framelens.probes.run.costs import ChunkUse, Evaluations
from framelens.probes.run.probed_clip import ProbedClip
from framelens.probes.run.settings import Settings
from framelens.probes.run.shape import RunShape

EVERY = (2, 4)


def measure(probed_clip: ProbedClip) -> dict[str, xr.Dataset]:
    """`reuse_refresh`, (clip, kind, layer, refresh); empty for a sampler of a single step."""
    probe, layers = probed_clip.chunk_probe(), probed_clip.layers
    every = refreshes(probed_clip.settings)
    if not every:
        return {}
    table = Table(probe, kind=[*stored_features.KINDS, "cross"], layer=layers, refresh=every)
    table.put_plain()
    modes = torch.stack([cross_frame.through(probe, layer, STORED) for layer in layers])
    places = list(itertools.product([*stored_features.KINDS, "cross"], layers))
    for k in every:
        whole = stored_features.generate_refreshed(probe, places[: -len(layers)], k)
        drawn = [*whole, *cross_frame.generate_refreshed(probe, modes, k)]
        for (kind, layer), frames in zip(places, drawn, strict=True):
            table.put_frames(frames, kind=kind, layer=layer, refresh=k)
            share = stored_features.block_share(probe, layer + 1, lambda step, k=k: step % k == 0)
            cost = {"block_share": 1.0 if kind == "cross" else share}
            table.put(cost, kind=kind, layer=layer, refresh=k)
    return {"reuse_refresh": table.dataset()}


def evaluations(run: RunShape) -> Evaluations:
    """For each k every step: all layers for attention and new features, else the layers after L."""
    every, kinds = refreshes(run.settings), len(stored_features.KINDS)
    attention = len(every) * run.rows(len(run.reached)) * run.steps * run.layers
    whole = 0
    for k in every:
        fresh = ceil(run.steps / k)
        whole += len(run.reached) * fresh * run.layers + run.behind * (run.steps - fresh)
    return Evaluations(attention + kinds * DRAWS * whole, chunk=ChunkUse(velocities=bool(every)))


def refreshes(settings: Settings) -> list[int]:
    """After how many steps features are computed again; none for a sampler of fewer steps."""
    return [k for k in (EVERY[:1] if settings.quick else EVERY) if k <= settings.drawn_steps]
