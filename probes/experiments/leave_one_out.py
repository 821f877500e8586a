"""One layer removed at a time: the error of the velocity by noise level, and of the frame.

A removed layer is skipped: its input is passed to the next layer. The layers before it compute the same as in
the whole model, so they are run once, and each removal resumes after them. Noise levels are those of the
training density.
"""

from collections.abc import Iterator
from functools import partial

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from framelens.probes.chunk import partial_passes
from framelens.probes.chunk.chunk_probe import DRAWS, ChunkProbe
from framelens.probes.chunk.kept_frames import KeptFrames
from framelens.probes.chunk.measures import Table, describe_measure
from framelens.probes.chunk.partial_passes import Partial, above, all_but
from framelens.probes.run.costs import ChunkUse, Evaluations
from framelens.probes.run.probed_clip import ProbedClip
from framelens.probes.run.shape import NETWORK_COUNT, RunShape


def measure(probed_clip: ProbedClip) -> dict[str, xr.Dataset]:
    """`leave_one_out`, (clip, layer), with velocities by network and sigma; of every layer also if quick.

    `leave_one_out_frames` has the frames, of the first clips.
    """
    probes = {network: probed_clip.chunk_probe(network) for network in probed_clip.networks}
    layers = list(range(probed_clip.layers[0], probed_clip.layers[-1] + 1))
    table = Table(*probes.values(), network=list(probes), layer=layers)
    table.put_plain()
    probe = probed_clip.chunk_probe()
    kept = KeptFrames("leave_one_out", probed_clip.index, probe, layers)
    each = [Partial(all_but(probe, [layer])) for layer in layers]
    for layer, frames in zip(layers, partial_passes.generate(probe, each, probe.noise), strict=True):
        table.put_frames(frames, layer=layer)
        kept.put(frames, layer)
    for network, each in probes.items():
        for layer, velocity in _without_each(each, layers):
            table.put_velocities(velocity, network=network, layer=layer)
    dataset = table.dataset()
    loss = dataset.velocity_error / dataset.plain_velocity_error - 1
    about = describe_measure("relative_loss")
    dataset["relative_loss"] = loss.transpose(*dataset.velocity_error.dims).assign_attrs(about)
    return {"leave_one_out": dataset} | kept.datasets()


def evaluations(run: RunShape) -> Evaluations:
    """Frames without each layer; at each level one whole pass, resumed after each layer, by every network."""
    frames = len(run.every) * run.steps * (run.layers - 1)
    resumed = sum(run.layers - layer - 1 for layer in run.every)
    layers = frames + NETWORK_COUNT * run.levels * (run.layers + resumed)
    return Evaluations(DRAWS * layers, chunk=ChunkUse(networks=NETWORK_COUNT))


def velocities_without(
    probe: ChunkProbe, layers: list[int], x: Float[Tensor, "draw f c h w"], sigma: float, step: int = 0
) -> Float[Tensor, "layer draw f c h w"]:
    """The velocity at `x` without each of the layers, resumed from what is before it in a plain pass."""
    _, residual = probe.record_residual(x, sigma, step)
    resumed = [Partial(above(probe, layer), partial(_give, residual[layer])) for layer in layers]
    return partial_passes.velocities_at(probe, resumed, x, sigma, step)


def _give(value: Tensor, _tokens: Tensor) -> Tensor:
    return value


def _without_each(probe: ChunkProbe, layers: list[int]) -> Iterator[tuple[int, Tensor]]:
    """Each layer and the velocities without it, [sigma draw f c h w]."""
    levels = enumerate(probe.levels.tolist())
    by_level = [
        velocities_without(probe, layers, probe.at_level(sigma), sigma, step) for step, sigma in levels
    ]
    yield from zip(layers, torch.stack(by_level, dim=1), strict=True)
