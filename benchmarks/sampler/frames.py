"""One frame, sampled by our sampler and by the plain one: the same weights, past, noise and steps.

    frame = SampledFrame(PRESETS["far-b"], "dense", history=16, steps=10, device="cpu", seed=0)
    frame.prepare(), frame.ours()        # [1 1 c h w]
    frame.plain()                        # the same frame

Of a frame both encode the last finished frame and make all denoising steps.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from framelens.benchmarks.sampler.reference import PlainSampler
from framelens.diffusion.contract import CausalDiffuser, traits
from framelens.diffusion.sampler import prepare_steps, take_step
from framelens.diffusion.schedule import sigma_grid
from framelens.models import dense, scd
from framelens.models.dense import Dense
from framelens.models.scd import SCD

DENSE = "dense"
ARMS = (DENSE, "token_concat", "channel_concat")
"""The dense network, and the separated one with each of these fusions."""
OPENING = 0.02
"""Standard deviation of the noise added to every weight: it opens adaLN's gates, which start closed."""


@dataclass(frozen=True)
class SamplerPreset:
    """A geometry, and how much of it is timed."""

    what: str
    dense: dense.Config
    scd: scd.Config
    history: int
    """Finished frames before the one that is sampled."""
    steps: int

    def network(self, arm: str, device: str, seed: int) -> Dense | SCD:
        """The network of that arm, with random weights."""
        devices = [device] if device.startswith("cuda") else []
        with torch.random.fork_rng(devices=devices), torch.device(device), torch.no_grad():
            torch.manual_seed(seed)
            is_dense = arm == DENSE
            model = dense.build(self.dense) if is_dense else scd.build(replace(self.scd, fusion=arm))
            for weight in model.parameters():
                weight.add_(OPENING * torch.randn_like(weight))
        return model.eval().requires_grad_(False)


PRESETS = {
    "far-b": SamplerPreset(
        "64 tokens a frame, width 768, 12 layers",
        dense.config("far-b"), scd.config("scd-b"), history=16, steps=10,
    ),
    "tiny": SamplerPreset(
        "25 tokens a frame, width 128, 12 layers",
        dense.config("tiny"), scd.config("tiny"), history=8, steps=10,
    ),
}  # fmt: skip


class SampledFrame:
    """A network, its past of `history` - 1 encoded frames, and the noise of one frame."""

    def __init__(self, preset: SamplerPreset, arm: str, history: int, steps: int, device: str, seed: int):
        network = preset.network(arm, device, seed)
        self.network: CausalDiffuser = network
        self.reference, self.said = PlainSampler(network), traits(network)
        self.sigmas = sigma_grid(steps).to(device)
        config, draws = preset.dense, torch.Generator(device).manual_seed(seed)
        shape = (history + 1, 1, 1, config.channels, config.height, config.width)
        *finished, self.last, self.noise = torch.randn(shape, generator=draws, device=device)
        context: Any
        with torch.inference_mode():
            context, self.past = self.network.start(1), self.reference.start(1)
            for frame in finished:
                context = self.network.encode(frame, context)
                self.past = self.reference.encode(frame, self.past)
        self.context = context
        self.prepare()

    def prepare(self) -> None:
        """Copies the context, to which encoding a frame writes; the plain sampler makes a new past anyway."""
        self._fresh = copy.deepcopy(self.context)

    @torch.inference_mode()
    def ours(self) -> Tensor:
        """The frame by our sampler."""
        context = self.network.encode(self.last, self._fresh)
        steps = prepare_steps(self.said, self.sigmas[:-1], context)
        return self._sample(self.network.denoise, steps)

    @torch.inference_mode()
    def plain(self) -> Tensor:
        """The frame by the plain sampler."""
        past = self.reference.encode(self.last, self.past)
        return self._sample(self.reference.denoise, iter([past] * (len(self.sigmas) - 1)))

    def _sample(self, denoise: Callable[[Tensor, Tensor, Any], Tensor], contexts: Any) -> Tensor:
        x, levels = self.noise, self.sigmas.tolist()
        for step, context in enumerate(contexts):
            velocity = denoise(x, self.sigmas[step].expand(len(x)), context)
            x = take_step(x, velocity, levels[step], levels[step + 1])
        return x

    def difference(self) -> float:
        """The largest difference of the two frames, as a share of the largest value."""
        self.prepare()
        ours, plain = self.ours(), self.plain()
        return float((ours - plain).abs().max() / plain.abs().max())
