"""Cross-frame attention removed: from a layer on, in one layer, up to a layer, in one head.

How much of the context's benefit remains when the layers after L see only their own frame tells up to which
layer the past is needed. The random network's velocity under the same cuts is the null.
"""

import itertools

import torch
import xarray as xr
from jaxtyping import Int
from torch import Tensor

from framelens.probes.chunk import cross_frame
from framelens.probes.chunk.chunk_probe import ChunkProbe
from framelens.probes.chunk.cross_frame import CUT
from framelens.probes.chunk.kept_frames import KeptFrames
from framelens.probes.chunk.measures import Table
from framelens.probes.run.costs import ChunkUse, Evaluations
from framelens.probes.run.probed_clip import ProbedClip
from framelens.probes.run.shape import NETWORK_COUNT, RunShape

WHERE = {
    "from": lambda layer, depth: slice(layer, depth),
    "only": lambda layer, depth: slice(layer, layer + 1),
    "up_to": lambda layer, depth: slice(0, layer + 1),
}
"""Which layers of a stack are cut, given the layer that is named."""
QUICK = ("from", "only")
"""The cuts that decide the split: a quick run makes only these, at every layer."""


def measure(probed_clip: ProbedClip) -> dict[str, xr.Dataset]:
    """`cut`, (clip, where, layer), and unless the run is quick `cut_heads`, (clip, layer, head).

    `cut_frames` has frames cut from each layer on, of the first clips.
    """
    probes = [probed_clip.chunk_probe(network) for network in probed_clip.networks]
    cuts = list(QUICK if probed_clip.settings.quick else WHERE)
    layers = list(range(probed_clip.layers[0], probed_clip.layers[-1] + 1))
    table = Table(*probes, network=list(probed_clip.networks), where=cuts, layer=layers)
    places = [{"where": where, "layer": layer} for where, layer in itertools.product(cuts, layers)]
    kept = KeptFrames("cut", probed_clip.index, probes[0], layers)
    networks = [{"network": network} for network in probed_clip.networks]
    found = {"cut": _fill(table, places, networks, kept)} | kept.datasets()
    if not probed_clip.settings.quick:
        heads = list(range(probed_clip.chunk_probe().model.geometry.heads))
        table = Table(probed_clip.chunk_probe(), layer=probed_clip.layers, head=heads)
        places = [
            {"layer": layer, "head": head} for layer, head in itertools.product(probed_clip.layers, heads)
        ]
        found["cut_heads"] = _fill(table, places, [{}])
    return found


def evaluations(run: RunShape) -> Evaluations:
    """Frames of each cut by the trained network, velocities by every network; heads by the trained one."""
    cuts = (len(QUICK) if run.settings.quick else len(WHERE)) * len(run.every)
    rows = run.rows(cuts) * (run.steps + NETWORK_COUNT * run.levels)
    if not run.settings.quick:
        rows += run.rows(len(run.reached) * run.heads) * (run.steps + run.levels)
    return Evaluations(rows * run.layers, chunk=ChunkUse(networks=NETWORK_COUNT))


def _fill(
    table: Table, places: list[dict], networks: list[dict], kept: KeptFrames | None = None
) -> xr.Dataset:
    table.put_plain()
    probe = table.probes[0]
    modes = torch.stack([cut_modes(probe, **place) for place in places])
    for place, frames in zip(places, cross_frame.generate(probe, modes, {}), strict=True):
        table.put_frames(frames, **place)
        if kept is not None and place["where"] == "from":
            kept.put(frames, place["layer"])
    for network, probe in zip(networks, table.probes, strict=True):
        for place, velocity in zip(places, cross_frame.velocities(probe, modes, {}), strict=True):
            table.put_velocities(velocity, **place, **network)
    return table.dataset()


def cut_modes(
    probe: ChunkProbe, layer: int, where: str = "only", head: int | None = None
) -> Int[Tensor, "layer head"]:
    """The modes in which that layer (from it on, up to it) sees its own frame only, or one head of it."""
    modes = cross_frame.live(probe)
    modes[WHERE[where](layer, len(modes)), slice(None) if head is None else head] = CUT
    return modes
