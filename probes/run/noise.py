"""Noise by name: every experiment has noise of its own, which follows from seed, clip and name alone.

    noise_like(video, seed_of(settings, clip, "readout"))
    noise_like(video, seed_of(settings, clip, "noise_invariance", 1))       # the experiment's second noise

The name is the experiment's own. Two experiments share noise only if one gives the other's name.
"""

import hashlib

import torch
from torch import Tensor

from framelens.probes.run.settings import Settings


def seed_of(settings: Settings, index: int, name: str, number: int = 0) -> int:
    """The seed of a clip's noise of that name and number: 63 bits of a hash of all four."""
    about = f"{settings.seed} {index} {name} {number}"
    return int.from_bytes(hashlib.sha256(about.encode()).digest()[:8], "big") >> 1


def renoise_seed_of(settings: Settings, index: int, name: str, number: int = 0) -> int | None:
    """The seed of what a rollout from that noise adds between its steps; None where it adds nothing."""
    return seed_of(settings, index, f"{name}, added between steps", number) if settings.renoise else None


def noise_like(video: Tensor, seed: int) -> Tensor:
    """Noise for a whole video; the same for the same seed on every device."""
    return torch.randn(video.shape, generator=torch.Generator().manual_seed(seed)).to(video)
