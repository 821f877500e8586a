"""Each layer removed in turn: what the velocity loses at noise levels of the training density, and the frame.

Removed means passed over: its input goes on to the next layer. The layers before it compute what they do in
the whole model, so they are run once and the removal resumes behind them.
"""

from collections.abc import Iterator

import torch
import xarray as xr
from torch import Tensor

from framelens.probes.chunk.measures import Table, described
from framelens.probes.chunk.stage import DRAWS, Stage
from framelens.probes.run.costs import ChunkUse, Evaluations
from framelens.probes.run.shape import NETWORK_COUNT, RunShape
from framelens.probes.run.subject import Subject


def measure(subject: Subject) -> dict[str, xr.Dataset]:
    """`leave_one_out`, (clip, layer), with velocities by network and sigma; of every layer also if quick."""
    stages = {network: subject.stage(network) for network in subject.networks}
    layers = list(range(subject.layers[0], subject.layers[-1] + 1))
    table = Table(*stages.values(), network=list(stages), layer=layers)
    table.put_plain()
    stage = subject.stage()
    for layer in layers:
        table.put_frames(without(stage, layer, stage.noise), layer=layer)
    for network, each in stages.items():
        for layer, velocity in _without_each(each, layers):
            table.put_velocities(velocity, network=network, layer=layer)
    dataset = table.dataset()
    loss = dataset.velocity_error / dataset.plain_velocity_error - 1
    about = described("relative_loss")
    dataset["relative_loss"] = loss.transpose(*dataset.velocity_error.dims).assign_attrs(about)
    return {"leave_one_out": dataset}


def evaluations(run: RunShape) -> Evaluations:
    """Frames without each layer; at each level one whole pass, resumed after each layer, by every network."""
    frames = len(run.every) * run.steps * (run.layers - 1)
    resumed = sum(run.layers - layer - 1 for layer in run.every)
    layers = frames + NETWORK_COUNT * run.levels * (run.layers + resumed)
    return Evaluations(DRAWS * layers, chunk=ChunkUse(networks=NETWORK_COUNT))


def without(stage: Stage, layer: int, x: Tensor) -> Tensor:
    """The frames drawn from `x` by the model without that layer, [b f c h w]."""
    with stage.layers.replaced({layer: lambda value: value}) as on_pass:
        run = len(stage.layers) - 1
        return stage.drawn(x, lambda x, step: stage.velocity(x, stage.sigma(step), step, [on_pass], run=run))


def velocities_without(
    stage: Stage, layers: list[int], x: Tensor, sigma: float, step: int = 0
) -> tuple[Tensor, list[Tensor]]:
    """The plain velocity at `x`, and that without each of the layers, resumed from what entered it."""
    plain, features = stage.recorded(x, sigma, step)
    found = []
    for layer in layers:
        with stage.layers.replaced(resumed(layer, features.residual[layer])) as on_pass:
            run = len(stage.layers) - layer - 1
            found.append(stage.velocity(x, sigma, step, [on_pass], run=run))
    return plain, found


def resumed(layer: int, value: Tensor) -> dict:
    """Replacements under which nothing runs up to and with that layer, behind which `value` goes on."""
    return {before: lambda entered: entered for before in range(layer)} | {layer: lambda entered: value}


def _without_each(stage: Stage, layers: list[int]) -> Iterator[tuple[int, Tensor]]:
    """Each layer and the velocities without it, [sigma draw f c h w]."""
    levels = enumerate(stage.levels.tolist())
    by_level = [
        velocities_without(stage, layers, stage.at_level(sigma), sigma, step)[1] for step, sigma in levels
    ]
    for layer, velocities in zip(layers, zip(*by_level, strict=True), strict=True):
        yield layer, torch.stack(velocities)
