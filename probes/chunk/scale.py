"""The range in which frames are compared: pixels in [-1, 1], or latents as they are.

scale = Scale.of(model, clip.video)
scale.psnr(drawn, truth)
"""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from framelens.diffusion.contract import CausalDiffuser, traits

PIXELS, LATENTS = "pixels in [-1, 1]", "latents as they are"


@dataclass(frozen=True)
class Scale:
    """The range of values that errors are compared with; pixels by default."""

    peak: float = 2.0
    is_latent: bool = False

    @classmethod
    def of(cls, model: CausalDiffuser, truth: Tensor) -> "Scale":
        """The scale of the model's frames; the peak of latents is the range of the whole true clip."""
        if not traits(model).latent:
            return cls()
        return cls(float(truth.max() - truth.min()) or 1.0, True)

    @property
    def values(self) -> str:
        """A description of the values of a frame."""
        return LATENTS if self.is_latent else PIXELS

    @property
    def peak_name(self) -> str:
        """A description of the peak of a signal-to-noise ratio."""
        return "the true clip's range as peak" if self.is_latent else "peak 2"

    def limit_range(self, frames: np.ndarray) -> np.ndarray:
        """Pixels clipped to their range; latents unchanged."""
        return frames if self.is_latent else np.clip(frames, -1, 1)

    def decibels(self, error: np.ndarray) -> np.ndarray:
        """The signal-to-noise ratio of mean squared errors; 100 dB at most."""
        power = self.peak**2
        return 10 * np.log10(power / np.maximum(error, 1e-10 * power))

    def psnr(self, image: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """The ratio in dB over (channel, row, col) of each image; identical ones give 100 dB."""
        return self.decibels(np.mean((self.limit_range(image) - truth) ** 2, axis=(-3, -2, -1)))


IN_PIXELS = Scale()
