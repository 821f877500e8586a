"""One arm of the comparison: a network with random weights, and its timed operations.

    arm = Arm(network, preset, "cpu", seed=0)
    arm.reach(history=32, batch=1)               # encodes random frames after those already encoded
    arm.sample(sigmas), arm.encode()             # one frame's denoising steps; encoding a frame

Weights are random: operations and times do not depend on them.
"""

import copy

import torch
from torch import Tensor

from framelens.benchmarks.scd.presets import DENSE, FETCH_ONCE, Preset
from framelens.diffusion.contract import CausalDiffuser, Context, traits
from framelens.diffusion.guidance import guide
from framelens.diffusion.sampler import prepare_steps
from framelens.diffusion.schedule import sigma_grid
from framelens.models import dense, scd
from framelens.models.variants.captured import capture
from framelens.models.variants.fetch_once import fetch_once

PLAIN = "plain"
OPENING = 0.02
"""Standard deviation of the noise added to every weight. It opens adaLN's gates, which start closed: with
closed gates the captured and the plain network would agree even if one were wrong."""


def network(
    preset: Preset, fusion: str, device: str, dtype: str, seed: int, decoder_layers: int | None = None
) -> CausalDiffuser:
    """The dense network, the same with the past fetched once, or the separated one with that fusion.

    Its weights are random; it is on that device.
    """
    with torch.random.fork_rng(devices=[device] if device.startswith("cuda") else []), torch.device(device):
        torch.manual_seed(seed)
        if fusion in (DENSE, FETCH_ONCE):
            model = dense.build(preset.dense)
        else:
            model = scd.build(preset.separated_config(fusion, decoder_layers))
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(OPENING * torch.randn_like(weight))
    model = model.to(getattr(torch, dtype)).eval().requires_grad_(False)
    return fetch_once(model, preset.past_layers) if fusion == FETCH_ONCE else model


class Arm:
    """A network, the context after its history, and one frame of noise."""

    def __init__(self, model: CausalDiffuser, preset: Preset, device: str, seed: int, mode: str = PLAIN):
        self.network, self.preset, self.device, self.seed = model, preset, device, seed
        self.model = guide(model if mode == PLAIN else capture(model, mode), preset.guidance)
        self.said = traits(self.model)
        self.is_captured = mode != PLAIN
        self.history, self.batch = -1, 0
        self.context: Context = None
        self._fresh: Context = None

    @torch.inference_mode()
    def reach(self, history: int, batch: int) -> None:
        """Encodes random frames until the context holds `history` frames, for a batch of that size."""
        if batch != self.batch or history < self.history:
            self.context = None  # before a new one is made, so that both never exist together
            self.draws = torch.Generator(self.device).manual_seed(self.seed)
            self.batch, self.history, self.noise = batch, 0, self._frame(batch)
            self.context = self.model.start(batch, self._condition(batch))
        for _ in range(self.history, history):
            self.context = self.model.encode(self._frame(batch), self.context)
        self.history = history

    def _frame(self, batch: int) -> Tensor:
        config = self.preset.dense
        shape = (batch, 1, config.channels, config.height, config.width)
        return torch.randn(shape, generator=self.draws, device=self.device)

    def _condition(self, batch: int) -> Tensor | None:
        config = self.preset.dense
        if config.text_tokens:
            shape = (batch, config.text_tokens, config.text_width)
            return torch.randn(shape, generator=self.draws, device=self.device)
        if not config.conditions:
            return None
        shape = (batch, self.preset.frames + 1)
        return torch.randint(config.conditions, shape, generator=self.draws, device=self.device)

    def sigmas(self, steps: int) -> Tensor:
        """The noise levels of a sampler with that many steps, on the device."""
        return sigma_grid(steps).to(self.device)

    @torch.inference_mode()
    def sample(self, sigmas: Tensor) -> Tensor:
        """The next frame from noise, by Euler steps, after the encoded history."""
        return self._denoise_frame(sigmas, self._fresh if self.is_captured else self.context)

    def _denoise_frame(self, sigmas: Tensor, context: Context) -> Tensor:
        x = self.noise
        for step, own in enumerate(prepare_steps(self.said, sigmas[:-1], context)):
            velocity = self.model.denoise(x, sigmas[step].expand(len(x)), own)
            x = x + (sigmas[step + 1] - sigmas[step]) * velocity
        return x

    def prepare_sample(self) -> None:
        """Copies the context, so that captured steps see it as that of a new frame."""
        if self.is_captured:
            self.prepare_encode()

    def prepare_encode(self) -> None:
        """Copies the context, because `encode` writes to it and the original must not change."""
        self._fresh = None  # before the copy, so that two never exist together
        self._fresh = copy.deepcopy(self.context)

    @torch.inference_mode()
    def encode(self) -> None:
        """Encodes one frame in every branch, in a copy of the context."""
        self.model.encode(self.noise, self._fresh)

    @torch.inference_mode()
    def first_frame(self, sigmas: Tensor) -> Tensor:
        """`start` and the first frame, without history and without preparation."""
        return self._denoise_frame(sigmas, self.model.start(self.batch, self._condition(self.batch)))

    def warm(self, sigmas: Tensor) -> None:
        """Records or compiles captured steps, for every branch, before anything is timed."""
        for _ in range(3 if self.is_captured else 0):
            self.prepare_sample()
            self.sample(sigmas)
