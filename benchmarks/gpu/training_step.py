"""One step of training a separated network whose blocks are computed again in the backward pass."""

import torch

from framelens.benchmarks import measure
from framelens.benchmarks.gpu.readings import Reading, read_rounds
from framelens.benchmarks.gpu.sizes import DaySizes
from framelens.benchmarks.trained_network import TrainedNetwork
from framelens.diffusion.contract import module_of
from framelens.models import scd
from framelens.models.cost.operations import VALUE_BYTES, shape_of
from framelens.models.cost.training import TrainingStep

AVERAGE = "average"
"""What a training holds beside: the average of its weights."""


def build_step(sizes: DaySizes) -> TrainedNetwork:
    """A separated network whose blocks are computed again in the backward pass, and a clip to train it on."""
    with torch.device(sizes.device):
        torch.manual_seed(0)
        model = scd.build(sizes.trained)
    for part in (model.encoder, model.decoder):
        part.recompute = True
    return TrainedNetwork(model, sizes.trained, sizes.trained_frames, sizes.device)


def measure_training_step(sizes: DaySizes) -> list[Reading]:
    """Seconds and peak memory of a step, and its loss."""
    seconds: list[float] = []
    losses: list[float] = []
    weights: list[int] = []

    def run() -> None:
        step = build_step(sizes)
        seconds[:] = measure.interleave({0: step.advance}, sizes.repeats, sizes.device, 0)[0].wall_seconds
        losses.append(step.advance().item())
        weights.extend(weight.numel() for weight in module_of(step.model).parameters())

    peak = measure.peak_bytes(run, sizes.device) if sizes.device.startswith("cuda") else run()
    about = (
        f"{sum(weights) / 1e9:.2f} billion weights in float32, {sizes.trained_frames} frames, AdamW, blocks "
        "computed again in the backward pass"
    )
    readings = [
        read_rounds("a training step", seconds, "s", beside=about),
        Reading("loss after these steps", losses[0], beside="of a clip of noise"),
    ]
    if peak is None:
        return readings
    estimate = sum(size for name, size in estimate_bytes(sizes).items() if name != AVERAGE)
    return [
        *readings,
        Reading("peak memory", peak / 1e9, "GB"),
        Reading(
            "estimate", estimate / 1e9, "GB", beside="as framelens estimate --train, without the average"
        ),
        Reading("peak over estimate", peak / estimate, "x"),
    ]


def estimate_bytes(sizes: DaySizes) -> dict[str, int]:
    """The bytes of that step by what uses them, from shapes."""
    shape = shape_of(sizes.trained, batch=1, value_bytes=VALUE_BYTES[sizes.dtype])
    is_fused = sizes.device.startswith("cuda")
    return TrainingStep(shape, sizes.trained_frames, recompute=True, fused=is_fused).bytes()
