"""What encodes a video to latents and decodes them, frame after frame: checks, streams and descriptions."""

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
    """Encoding and decoding, frame after frame; results are float32 on the VAE's device.

    The first latent frame is one pixel frame, each later one `temporal` frames; a latent is `spatial` pixels
    high and wide.
    """

    channels: int
    spatial: int
    temporal: int

    def __init__(self, network: nn.Module, part: Part, device: str, dtype: str):
        self.network, self.part = network, part
        self.device, self.dtype = torch.device(device), getattr(torch, dtype)

    @property
    def kind(self) -> str:
        """The name of its class in diffusers."""
        return type(self.network).__name__

    def frames_of(self, latent_frames: int) -> int:
        """Pixel frames that so many latent frames stand for."""
        return 1 + (latent_frames - 1) * self.temporal

    def encode(self, video: Video) -> Coded:
        """The latents of pixels in [-1, 1], normalised as diffusion models take them."""
        return torch.cat(list(self.stream_encode(video)), dim=1)

    def decode(self, latents: Coded) -> Video:
        """The pixels in [-1, 1] of normalised latents."""
        return torch.cat(list(self.stream(latents)), dim=1)

    def stream_encode(self, video: Video) -> Iterator[Coded]:
        """One latent frame after the other; together they are what `encode` gives."""
        self.check_pixels(*video.shape[-4:])
        parts = video.split([1] + [self.temporal] * ((video.shape[1] - 1) // self.temporal), dim=1)
        return self._code(parts, self._encoder())

    def stream(self, latents: Coded) -> Iterator[Video]:
        """The pixel frames of one latent frame after the other; together they are what `decode` gives."""
        if latents.shape[2] != self.channels:
            raise ValueError(
                f"{self.part.path} ({self.kind}) decodes latents of {self.channels} channels, got "
                f"{latents.shape[2]}"
            )
        return self._code(latents.split(1, dim=1), self._decoder())

    def check_pixels(self, frames: int, channels: int, height: int, width: int) -> None:
        """Raises ValueError unless a video of this shape has whole latents."""
        if channels != COLOURS:
            raise ValueError(f"expected {COLOURS} colours, got {channels} channels")
        if height % self.spatial or width % self.spatial or 0 in (height, width):
            near = [str(max(1, round(size / self.spatial)) * self.spatial) for size in (height, width)]
            raise ValueError(
                f"{self.kind} takes heights and widths that are multiples of {self.spatial}, got "
                f"{height}x{width}; {'x'.join(near)} would do"
            )
        if (frames - 1) % self.temporal or frames < 1:
            below = self.frames_of(1 + max(0, frames - 1) // self.temporal)
            raise ValueError(
                f"{self.kind} takes 1 frame and then multiples of {self.temporal}, got {frames}; {below} or "
                f"{below + self.temporal} would do"
            )

    def describe(self) -> dict[str, Any]:
        """Plain values that say which VAE this is."""
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
        """Takes pixels of one latent frame after the other, remembering what it needs of the earlier ones."""

    @abstractmethod
    def _decoder(self) -> Coder:
        """Takes one latent frame after the other, remembering what it needs of the earlier ones."""
