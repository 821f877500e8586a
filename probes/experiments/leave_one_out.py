"""One layer removed at a time: the error of the velocity by noise level, and of the frame.

A removed layer is skipped: its input is passed to the next layer. The layers before it compute the same as in
the whole model, so they are run once, and each removal resumes after them. Noise levels are those of the
training density.
"""

from collections.abc import Iterator

import torch
import xarray as xr
from torch import Tensor

from framelens.probes.chunk.chunk_probe import DRAWS, ChunkProbe
from framelens.probes.chunk.kept_frames import KeptFrames
from framelens.probes.chunk.measures import Table, describe_measure
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
    for layer in layers:
        frames = without(probe, layer, probe.noise)
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


def without(probe: ChunkProbe, layer: int, x: Tensor) -> Tensor:
    """The frames generated from `x` by the model without that layer, [b f c h w]."""
    with probe.layers.replace_outputs({layer: lambda value: value}) as on_pass:
        run = len(probe.layers) - 1
        return probe.generate(
            x, lambda x, step: probe.velocity(x, probe.sigma(step), step, [on_pass], run=run)
        )


def velocities_without(
    probe: ChunkProbe, layers: list[int], x: Tensor, sigma: float, step: int = 0
) -> tuple[Tensor, list[Tensor]]:
    """The plain velocity at `x`, and the velocity without each of the layers, resumed from its input."""
    plain, features = probe.record(x, sigma, step)
    found = []
    for layer in layers:
        with probe.layers.replace_outputs(resume_after(layer, features.residual[layer])) as on_pass:
            run = len(probe.layers) - layer - 1
            found.append(probe.velocity(x, sigma, step, [on_pass], run=run))
    return plain, found


def resume_after(layer: int, value: Tensor) -> dict:
    """Outputs with which layers 0 to `layer` are skipped and `value` is passed on after them."""
    return {before: lambda entered: entered for before in range(layer)} | {layer: lambda entered: value}


def _without_each(probe: ChunkProbe, layers: list[int]) -> Iterator[tuple[int, Tensor]]:
    """Each layer and the velocities without it, [sigma draw f c h w]."""
    levels = enumerate(probe.levels.tolist())
    by_level = [
        velocities_without(probe, layers, probe.at_level(sigma), sigma, step)[1] for step, sigma in levels
    ]
    for layer, velocities in zip(layers, zip(*by_level, strict=True), strict=True):
        yield layer, torch.stack(velocities)
