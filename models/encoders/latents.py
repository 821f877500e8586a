"""The base of video encoders: latents of a video and back, one frame after another, with checks."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from framelens.models.encoders.component import Part

Video = Float[Tensor, "b f c h w"]
Coded = Float[Tensor, "b l z rows cols"]
Coder = Callable[[Tensor], Tensor]
COLOURS = 3


class Latents(ABC):
    """Encodes and decodes one latent frame after another; results are float32 on the VAE's device.

    The first latent frame stands for one pixel frame, each later one for `temporal` frames; a latent is
    `spatial` pixels high and wide.
    """

    channels: int
    spatial: int
    temporal: int

    def __init__(self, network: nn.Module, part: Part, device: str, dtype: str):
        self.network, self.part = network, part
        self.device, self.dtype = torch.device(device), getattr(torch, dtype)

    @property
    def kind(self) -> str:
        """The name of the VAE's class in diffusers."""
        return type(self.network).__name__

    def frames_of(self, latent_frames: int) -> int:
        """Number of pixel frames for that many latent frames."""
        return 1 + (latent_frames - 1) * self.temporal

    def encode(self, video: Video) -> Coded:
        """The latents of pixels in [-1, 1], normalised as the diffusion model expects."""
        return torch.cat(list(self.stream_encode(video)), dim=1)

    def decode(self, latents: Coded) -> Video:
        """The pixels in [-1, 1] of normalised latents."""
        return torch.cat(list(self.stream(latents)), dim=1)

    def stream_encode(self, video: Video) -> Iterator[Coded]:
        """The latent frames one after another; together they equal the result of `encode`."""
        self.check_pixels(*video.shape[-4:])
        parts = video.split([1] + [self.temporal] * ((video.shape[1] - 1) // self.temporal), dim=1)
        return self._code(parts, self._encoder())

    def stream(self, latents: Coded) -> Iterator[Video]:
        """The pixel frames of each latent frame in turn; together they equal the result of `decode`."""
        if latents.shape[2] != self.channels:
            raise ValueError(
                f"{self.part.path} ({self.kind}) decodes latents of {self.channels} channels, got "
                f"{latents.shape[2]}"
            )
        return self._code(latents.split(1, dim=1), self._decoder())

    def check_pixels(self, frames: int, channels: int, height: int, width: int) -> None:
        """Raises ValueError unless a video of this shape divides into whole latents."""
        if channels != COLOURS:
            raise ValueError(f"expected {COLOURS} colours, got {channels} channels")
        if height % self.spatial or width % self.spatial or 0 in (height, width):
            near = [str(max(1, round(size / self.spatial)) * self.spatial) for size in (height, width)]
            raise ValueError(
                f"{self.kind} takes heights and widths that are multiples of {self.spatial}, got "
                f"{height}x{width}; {'x'.join(near)} is possible"
            )
        if (frames - 1) % self.temporal or frames < 1:
            below = self.frames_of(1 + max(0, frames - 1) // self.temporal)
            raise ValueError(
                f"{self.kind} takes 1 frame and then multiples of {self.temporal}, got {frames}; {below} or "
                f"{below + self.temporal} are possible"
            )

    def describe(self) -> dict[str, Any]:
        """The identity of this VAE as plain values."""
        factors = {"channels": self.channels, "spatial": self.spatial, "temporal": self.temporal}
        return (
            {"class": self.kind, "dtype": str(self.dtype).removeprefix("torch.")}
            | factors
            | (self.part.describe())
        )

    @torch.no_grad()
    def _code(self, parts: tuple[Tensor, ...], coder: Coder) -> Iterator[Tensor]:
        for part in parts:
            yield coder(part.to(self.device, torch.float32))

    @abstractmethod
    def _encoder(self) -> Coder:
        """A function of the pixels of one latent frame after another; it remembers the earlier ones."""

    @abstractmethod
    def _decoder(self) -> Coder:
        """A function of one latent frame after another; it remembers the earlier ones."""
