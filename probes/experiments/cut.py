"""Cross-frame attention removed: from a layer on, in one layer, up to a layer, in one head.

What stays of the context's benefit when the layers behind L see only their own frame tells how late the past
is still fetched. The random network's velocity under the same cuts is the null.
"""

import itertools

import torch
import xarray as xr
from jaxtyping import Int
from torch import Tensor

from framelens.probes.chunk import cross_frame
from framelens.probes.chunk.cross_frame import CUT
from framelens.probes.chunk.measures import Table
from framelens.probes.chunk.stage import Stage
from framelens.probes.run.costs import ChunkUse, Evaluations
from framelens.probes.run.shape import NETWORK_COUNT, RunShape
from framelens.probes.run.subject import Subject

WHERE = {
    "from": lambda layer, depth: slice(layer, depth),
    "only": lambda layer, depth: slice(layer, layer + 1),
    "up_to": lambda layer, depth: slice(0, layer + 1),
}
"""Which layers of a stack are cut, by the layer that is named."""
QUICK = ("from", "only")
"""What the split is read from: in a quick run nothing else is cut, but at every layer."""


def measure(subject: Subject) -> dict[str, xr.Dataset]:
    """`cut`, (clip, where, layer), and unless the run is quick `cut_heads`, (clip, layer, head)."""
    stages = [subject.stage(network) for network in subject.networks]
    cuts = list(QUICK if subject.settings.quick else WHERE)
    layers = list(range(subject.layers[0], subject.layers[-1] + 1))
    table = Table(*stages, network=list(subject.networks), where=cuts, layer=layers)
    places = [{"where": where, "layer": layer} for where, layer in itertools.product(cuts, layers)]
    found = {"cut": _filled(table, places, [{"network": network} for network in subject.networks])}
    if not subject.settings.quick:
        heads = list(range(subject.stage().model.geometry.heads))
        table = Table(subject.stage(), layer=subject.layers, head=heads)
        places = [{"layer": layer, "head": head} for layer, head in itertools.product(subject.layers, heads)]
        found["cut_heads"] = _filled(table, places, [{}])
    return found


def evaluations(run: RunShape) -> Evaluations:
    """Each cut drawn by the trained network, its velocities by every network; heads by the trained one."""
    cuts = (len(QUICK) if run.settings.quick else len(WHERE)) * len(run.every)
    rows = run.rows(cuts) * (run.steps + NETWORK_COUNT * run.levels)
    if not run.settings.quick:
        rows += run.rows(len(run.reached) * run.heads) * (run.steps + run.levels)
    return Evaluations(rows * run.layers, chunk=ChunkUse(networks=NETWORK_COUNT))


def _filled(table: Table, places: list[dict], networks: list[dict]) -> xr.Dataset:
    table.put_plain()
    stage = table.stages[0]
    modes = torch.stack([cut_modes(stage, **place) for place in places])
    for place, frames in zip(places, cross_frame.drawn(stage, modes, {}), strict=True):
        table.put_frames(frames, **place)
    for network, stage in zip(networks, table.stages, strict=True):
        for place, velocity in zip(places, cross_frame.velocities(stage, modes, {}), strict=True):
            table.put_velocities(velocity, **place, **network)
    return table.dataset()


def cut_modes(
    stage: Stage, layer: int, where: str = "only", head: int | None = None
) -> Int[Tensor, "layer head"]:
    """The modes in which that layer (from it on, up to it) sees its own frame only, or one head of it."""
    modes = cross_frame.live(stage)
    modes[WHERE[where](layer, len(modes)), slice(None) if head is None else head] = CUT
    return modes
