"""What separated networks share whose encoder asks for the coming frames."""

import torch
from jaxtyping import Float
from torch import Tensor

from framelens.diffusion.contract import Geometry


def query_noise(geometry: Geometry, frame: int) -> Float[Tensor, "f c h w"]:
    """The noise with which the encoder asks for the chunk at that frame; the same in every clip."""
    g, generator = geometry, torch.Generator().manual_seed(frame)
    return torch.randn(g.frames_per_chunk, g.channels, g.height, g.width, generator=generator)


def disturb(
    features: Float[Tensor, "b n d"], strength: float, generator: torch.Generator
) -> Float[Tensor, "b n d"]:
    """Features with noise of that strength: c + eta zeta (Bai et al. 2026, eq. 7)."""
    noise = torch.randn(features.shape, generator=generator, device=generator.device)
    return features + strength * noise.to(features)
