"""What separated networks share whose encoder asks for the coming frames."""

import torch
from einops import repeat
from jaxtyping import Float
from torch import Tensor, nn

from framelens.diffusion.contract import Geometry
from framelens.diffusion.schedule import add_noise
from framelens.diffusion.transfer import send


class Queries(nn.Module):
    """Query tokens that are not noise: the finished frame's embedding and a learned mark, or the mark alone.

    Before frame 0, where no frame is finished, a learned vector stands for the embedding.
    """

    def __init__(self, kind: str, width: int):
        super().__init__()
        self.kind = kind
        self.mark = nn.Parameter(0.02 * torch.randn(width)) if kind in ("frame", "learned") else None
        self.start = nn.Parameter(0.02 * torch.randn(width)) if kind == "frame" else None

    def forward(
        self, last: Float[Tensor, "b m d"] | None, batch: int, tokens: int
    ) -> Float[Tensor, "{batch} _ d"]:
        """The query tokens after frames with these embedded tokens; as many as `tokens` if there are none."""
        assert self.mark is not None
        if self.start is None:
            return repeat(self.mark, "d -> b n d", b=batch, n=tokens)
        if last is None:
            return repeat(self.start + self.mark, "d -> b n d", b=batch, n=tokens)
        return last + self.mark


def query_noise(geometry: Geometry, frame: int) -> Float[Tensor, "f c h w"]:
    """The noise with which the encoder asks for the chunk at that frame; the same in every clip."""
    g, generator = geometry, torch.Generator().manual_seed(frame)
    return torch.randn(g.frames_per_chunk, g.channels, g.height, g.width, generator=generator)


def draw_queries(
    clean: Float[Tensor, "b f c h w"], least: float, chunk: int
) -> tuple[Float[Tensor, "b f c h w"], Float[Tensor, "b f"]]:
    """The queries of training: the true chunks at random noise levels from `least` to 1, and the levels."""
    level = torch.ones_like(clean[:, ::chunk, 0, 0, 0])
    level = (1 - (1 - least) * torch.rand_like(level)).repeat_interleave(chunk, dim=1)
    return add_noise(clean, torch.randn_like(clean), level), level


def disturb(
    features: Float[Tensor, "b n d"], strength: float, generator: torch.Generator
) -> Float[Tensor, "b n d"]:
    """Features with noise of that strength: c + eta zeta (Bai et al. 2026, eq. 7)."""
    noise = torch.randn(features.shape, generator=generator, device=generator.device)
    return features + strength * send(noise, features.device).to(features.dtype)
