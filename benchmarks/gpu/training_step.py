"""One step of training a separated network whose blocks are computed again in the backward pass."""

import torch
from torch import Tensor

from framelens.benchmarks import measure
from framelens.benchmarks.gpu.readings import Reading, read_rounds
from framelens.benchmarks.gpu.sizes import DaySizes
from framelens.diffusion.loss import flow_matching_loss
from framelens.models import scd

STATE_BYTES = 16
"""Bytes of a weight in training: the weight, its gradient and two moments, in float32."""


class TrainingStep:
    """A separated network in training, its optimiser and a clip of noise."""

    def __init__(self, sizes: DaySizes):
        config, self.device = sizes.trained, sizes.device
        self.on_gpu = self.device.startswith("cuda")
        with torch.device(self.device):
            torch.manual_seed(0)
            self.model = scd.build(config).train()
            shape = (1, sizes.trained_frames, config.channels, config.height, config.width)
            self.clean, self.noise = torch.randn(shape), torch.randn(shape)
            self.sigma = torch.rand(shape[:2])
            self.cond = self._condition(config)
        for part in (self.model.encoder, self.model.decoder):
            part.recompute = True
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=self.on_gpu)

    def _condition(self, config: scd.Config) -> Tensor | None:
        return torch.randn(1, config.text_tokens, config.text_width) if config.text_tokens else None

    def advance(self) -> Tensor:
        """The loss before one step."""
        with torch.autocast("cuda", torch.bfloat16, enabled=self.on_gpu):
            loss = flow_matching_loss(self.model, self.clean, self.noise, self.sigma, self.cond).mean()
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()


def measure_training_step(sizes: DaySizes) -> list[Reading]:
    """Seconds and peak memory of a step, and its loss."""
    seconds: list[float] = []
    losses: list[float] = []
    weights: list[int] = []

    def run() -> None:
        step = TrainingStep(sizes)
        seconds[:] = measure.interleave({0: step.advance}, sizes.repeats, sizes.device, 0)[0].wall_seconds
        losses.append(step.advance().item())
        weights.extend(weight.numel() for weight in step.model.parameters())

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
    state = f"{STATE_BYTES * sum(weights) / 1e9:.1f} GB are weights, gradients and moments"
    return [*readings, Reading("peak memory", peak / 1e9, "GB", beside=state)]
