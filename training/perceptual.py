"""LPIPS: how far two frames are apart for a network fitted to people's judgements (Zhang et al. 2018).

    network = open_perceptual(Path("alexnet-owt-7be5be79.pth"), "cpu")
    network.measure(video, truth)        # [b f], 0 for equal frames

The weights of the backbone are read from the user's file, as torchvision publishes them for AlexNet and
VGG-16; nothing is ever fetched. The weights of its channels come inside the package torchmetrics, whose own
LPIPS builds its backbone with torchvision and fetches it. Frames whose smaller side is below LEAST are
enlarged to it, since the networks need that many pixels.
"""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from framelens.models.loading.files import read_file
from framelens.records.extras import extra
from framelens.records.identity import Input
from framelens.training.packaged_features import to_colour

ALEX, VGG = "alex", "vgg"
KNOWN = "AlexNet or VGG-16 as torchvision publishes them"
TAPS = {ALEX: (1, 4, 7, 9, 11), VGG: (3, 8, 15, 22, 29)}
"""The modules after which features are compared, by their number in the backbone."""
WIDTHS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Channels of the convolutions of VGG-16; between two groups frames are halved."""
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""What a colour in [-1, 1] is shifted by and divided by before the backbone."""
LEAST = 64
FRAMES = 32
"""Frames that go through the network at a time."""


class PerceptualDistance(nn.Module):
    """The network of LPIPS, with a backbone and one weight for each channel of its features."""

    def __init__(self, kind: str, backbone: nn.Sequential, weights: list[Tensor], file: Input):
        super().__init__()
        self.kind, self.file, self.backbone = kind, file, backbone
        self.channels = nn.ParameterList(nn.Parameter(weight, requires_grad=False) for weight in weights)

    def describe(self) -> dict[str, Any]:
        """The backbone, its file with the hash, and the size below which frames are enlarged."""
        held = {"backbone": self.kind, "file": self.file.name, "sha256": self.file.sha256}
        return held | {"version": "0.1", "enlarged_to": LEAST}

    def forward(self, one: Float[Tensor, "n 3 h w"], other: Float[Tensor, "n 3 h w"]) -> Float[Tensor, " n"]:
        """Squared differences of features of unit length, weighted by channel, mean over places, summed."""
        total = one.new_zeros(len(one))
        for first, second, weight in zip(self._read(one), self._read(other), self.channels, strict=True):
            total = total + ((first - second) ** 2 * weight).sum(dim=1).mean(dim=(1, 2))
        return total

    def _read(self, frames: Tensor) -> list[Tensor]:
        """The features after each tap, of unit length at every place."""
        shift, scale = (frames.new_tensor(values)[:, None, None] for values in (SHIFT, SCALE))
        x, found = (frames - shift) / scale, []
        for number, module in enumerate(self.backbone):
            x = module(x)
            if number in TAPS[self.kind]:
                found.append(x / (1e-8 + (x**2).sum(dim=1, keepdim=True)).sqrt())
        return found

    @torch.no_grad()
    def measure(
        self, video: Float[np.ndarray, "b f c h w"], truth: Float[np.ndarray, "b f c h w"]
    ) -> Float[np.ndarray, "b f"]:
        """LPIPS of each frame. ValueError for frames that are neither grey nor in colour, such as latents."""
        pairs = zip(*(_prepare(frames).split(FRAMES) for frames in (video, truth)), strict=True)
        device = self.channels[0].device
        found = [self(one.to(device), other.to(device)) for one, other in pairs]
        return torch.cat(found).double().cpu().numpy().reshape(video.shape[:2])


def open_perceptual(path: Path, device: str) -> PerceptualDistance:
    """The network with the backbone of that file. FileNotFoundError, or ValueError for another network's."""
    if not path.exists():
        raise FileNotFoundError(f"--lpips {path} does not exist; expected the weights of {KNOWN}")
    held = read_file(path).weights
    weights = {name.removeprefix("features."): w for name, w in held.items() if name.startswith("features.")}
    wanted = {kind: build().state_dict() for kind, build in {ALEX: _alexnet, VGG: _vgg16}.items()}
    kind = next((kind for kind, own in wanted.items() if _are_alike(own, weights)), None)
    if kind is None:
        raise ValueError(f"--lpips {path} holds the weights of another network; expected {KNOWN}")
    backbone = _alexnet() if kind == ALEX else _vgg16()
    backbone.to_empty(device="cpu").load_state_dict({name: weights[name] for name in wanted[kind]})
    network = PerceptualDistance(kind, backbone, _read_channels(kind), Input.read("lpips", path))
    return network.to(device).eval()


def _are_alike(own: dict[str, Tensor], weights: dict[str, Tensor]) -> bool:
    return all(name in weights and weights[name].shape == weight.shape for name, weight in own.items())


def _alexnet() -> nn.Sequential:
    """The convolutions of AlexNet as in torchvision, without memory."""
    with torch.device("meta"):
        return nn.Sequential(
            nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(),
        )  # fmt: skip


def _vgg16() -> nn.Sequential:
    """The convolutions of VGG-16 as in torchvision, without memory."""
    layers, channels = [], 3
    with torch.device("meta"):
        for group in WIDTHS:
            for width in group:
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
            layers.append(nn.MaxPool2d(2, 2))
        return nn.Sequential(*layers[:-1])


def _read_channels(kind: str) -> list[Tensor]:
    """The weights [1 channels 1 1] of the features after each tap. Needs the extra `scores`."""
    with extra("scores"):
        found = importlib.util.find_spec("torchmetrics")
        if found is None or found.origin is None:
            raise ModuleNotFoundError(name="torchmetrics")
    file = Path(found.origin).parent / "functional" / "image" / "lpips_models" / f"{kind}.pth"
    held = read_file(file).weights
    return [held[f"lin{tap}.model.1.weight"] for tap in range(len(TAPS[kind]))]


def _prepare(video: np.ndarray) -> Float[Tensor, "n 3 h w"]:
    """The frames in colour and at least LEAST pixels high and wide."""
    try:
        frames = to_colour(torch.from_numpy(np.ascontiguousarray(video, np.float32)).flatten(0, 1))
    except ValueError as error:
        raise ValueError(f"--lpips: {error}") from None
    smaller = min(frames.shape[-2:])
    if smaller >= LEAST:
        return frames
    size = tuple(round(side * LEAST / smaller) for side in frames.shape[-2:])
    return nn.functional.interpolate(frames, size, mode="bilinear", align_corners=False)
