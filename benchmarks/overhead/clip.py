"""A clip of noise and two networks with random weights, as a probe is given them.

probed = random_clip(config, settings)
datasets = experiments.load("rollouts").measure(probed)
"""

import copy

import torch

from framelens.models import dense
from framelens.probes.chunk.pasts import Clip
from framelens.probes.run.probed_clip import ProbedClip
from framelens.probes.run.settings import Settings

OPENING = 0.02
"""Standard deviation of the noise that opens the gates of adaLN."""


def random_clip(config: dense.Config, settings: Settings) -> ProbedClip:
    """A clip of `settings.frames` frames on the device of the settings; its control is another one."""
    device, frames = settings.device, settings.frames or 1
    with torch.random.fork_rng(devices=[device] if device.startswith("cuda") else []), torch.device(device):
        torch.manual_seed(settings.seed)
        model = dense.build(config).eval().requires_grad_(False)
        for weight in model.parameters():
            weight.add_(OPENING * torch.randn_like(weight))
        model = model.to(getattr(torch, settings.dtype))
        size = (1, frames, config.channels, config.height, config.width)
        text = torch.randn(1, config.text_tokens, config.text_width) if config.text_tokens else None
        actions = torch.zeros(1, frames, dtype=torch.long) if config.conditions else None
        own, other = (Clip(torch.randn(size), actions if text is None else text) for _ in range(2))
    return ProbedClip(0, {"trained": model, "random": copy.deepcopy(model)}, own, other, settings, frames)
