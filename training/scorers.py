"""The networks with which `framelens evaluate` scores, opened as its options ask.

scorers = open_scorers(options)                    # --features, --lpips, --vae
clips, (sampled, free) = scorers.decode(clips, [sampled, free])
"""

import argparse
from typing import Any, NamedTuple

import numpy as np
import torch

from framelens.models.encoders.latents import Latents
from framelens.models.encoders.vae import open_vae
from framelens.models.loading.files import files_of
from framelens.records.identity import Input
from framelens.records.progress import progress_bar
from framelens.training.clip_scores import Measure
from framelens.training.features import FeatureNetwork, open_features
from framelens.training.perceptual import PerceptualDistance, open_perceptual


class Scorers(NamedTuple):
    """The networks; None for what was not asked."""

    features: FeatureNetwork | None = None
    perceptual: PerceptualDistance | None = None
    vae: Latents | None = None

    @property
    def lpips(self) -> Measure | None:
        """LPIPS by frame."""
        return None if self.perceptual is None else self.perceptual.measure

    def shape_of(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Channels, height and width of the frames that are scored, for frames of that shape."""
        if self.vae is None:
            return shape
        return 3, shape[1] * self.vae.spatial, shape[2] * self.vae.spatial

    def decode(self, *videos: np.ndarray) -> list[np.ndarray]:
        """The videos [b f c h w] as pixels in [-1, 1]; as they are without --vae."""
        if self.vae is None:
            return list(videos)
        vae, rows = self.vae, [(video, row) for video in videos for row in range(len(video))]
        pixels = [
            vae.decode(torch.from_numpy(video[row : row + 1]).to(vae.device))[0].cpu().numpy()
            for video, row in progress_bar(rows, desc="decoding", unit="clip", leave=False)
        ]
        ends = np.cumsum([len(video) for video in videos])
        return [np.stack(pixels[end - len(video) : end]) for video, end in zip(videos, ends, strict=True)]

    def describe(self, true: dict[str, np.ndarray] | None) -> dict[str, dict[str, Any]]:
        """What identifies each network, as plain values; `true` has the features of the true frames."""
        features = {} if self.features is None or true is None else self.features.describe(true)
        lpips = {} if self.perceptual is None else self.perceptual.describe()
        return {
            "features": features,
            "lpips": lpips,
            "vae": {} if self.vae is None else _describe_vae(self.vae),
        }


def open_scorers(options: argparse.Namespace) -> Scorers:
    """The networks of these options. ValueError or FileNotFoundError where one cannot be had."""
    device = options.device
    features = None if options.features is None else open_features(options.features, device)
    perceptual = None if options.lpips is None else open_perceptual(options.lpips, device)
    vae = None if options.vae is None else open_vae(options.vae, device)
    if vae is not None and vae.temporal != 1:
        raise ValueError(
            f"--vae {options.vae} makes {vae.temporal} frames of a latent, so a sampled frame cannot be "
            "decoded alone; expected a VAE of single frames (AutoencoderDC)"
        )
    return Scorers(features, perceptual, vae)


def _describe_vae(vae: Latents) -> dict[str, Any]:
    path = vae.part.path
    read = [Input.read("vae", file) for file in ([path] if path.is_file() else files_of(path))]
    return {"kind": vae.kind, "sha256": {file.name: file.sha256 for file in read}}
