"""Features of frames: from a network that comes in a package, or from a user's, opened as an adapter is.

    network = open_features("efficientnet-lite0", "cpu")   # or "my_features.py:load"
    true = network.read_true(clips, context=4)             # refuses features that cannot be compared
    network.score(free, true, clips, context=4)            # distances of a free run from the true clips

A user's function takes no argument and gives a torch module or another callable, [b c h w] -> [b d]. Its file
is code, and it is run. What the network needs, such as another size of frames, it does itself. See
training/packaged_features.py for `efficientnet-lite0`.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from framelens.models.loading.adapter import run_function
from framelens.models.loading.locate import ADAPTER, find
from framelens.models.loading.model_errors import error_line
from framelens.records.notes import print_note
from framelens.training.distances import DRAWS, GROUPS, has_covariance, measure_distances
from framelens.training.measures import ScoreMean
from framelens.training.packaged_features import NAME, WEIGHTS, EfficientNetFeatures
from framelens.videos import Clips

FRAMES = 64
"""Frames that go through the network at a time."""


class FeatureNetwork:
    """A network that gives features of frames; `files` has the hashes of what it was made from, by name."""

    def __init__(self, name: str, function: Callable[..., Any], files: dict[str, str], device: str):
        self.name, self.function, self.files, self.device = name, function, files, device

    def read_true(self, clips: Clips, context: int) -> dict[str, np.ndarray]:
        """Features [b f d] of the true frames from `context` on and of their differences.

        ValueError where they are not features. A note where there are too few frames for a Frechet distance.
        """
        found = self._read_both(clips.video[:, context:], clips, context)
        count, frames, width = found["frames"].shape
        if not has_covariance(count, frames, width):
            print_note(
                f"{self.name} gives {width} numbers for each frame, and a Frechet distance needs more frames "
                f"than that, got {count * frames} ({count} clips of {frames}): only the kernel distance is "
                "measured; raise --clips for both"
            )
        return found

    def score(
        self, free: np.ndarray, true: dict[str, np.ndarray], clips: Clips, context: int
    ) -> dict[str, ScoreMean]:
        """Frechet and kernel distance of a free run from the true clips, of frames and of differences."""
        generated = self._read_both(free, clips, context)
        return {
            f"{distance} of {what}, free run": measure
            for what, features in generated.items()
            for distance, measure in measure_distances(features, true[what]).items()
        }

    def _read_both(self, video: np.ndarray, clips: Clips, context: int) -> dict[str, np.ndarray]:
        """Half of the difference from the frame before it is in [-1, 1], as a frame is."""
        whole = np.concatenate([clips.video[:, context - 1 : context], video], axis=1)
        return {"frames": self.read(video), "differences of frames": self.read(np.diff(whole, axis=1) / 2)}

    def describe(self, true: dict[str, np.ndarray]) -> dict[str, Any]:
        """The network, the hashes of its files, and the numbers of features and frames, as plain values."""
        clips, frames, width = true["frames"].shape
        sizes = {"features": width, "frames": clips * frames, "clips": clips}
        sizes |= {"bootstrap_draws": DRAWS, "jackknife_groups": min(clips, GROUPS)}
        return {"function": self.name, "sha256": self.files} | sizes

    @torch.no_grad()
    def read(self, video: Float[np.ndarray, "b f c h w"]) -> Float[np.ndarray, "b f d"]:
        """The features of each frame; ValueError where they have another shape or are not finite."""
        frames = torch.from_numpy(np.ascontiguousarray(video, np.float32)).flatten(0, 1)
        parts = [self._read_batch(batch) for batch in frames.split(FRAMES)]
        return np.concatenate(parts).reshape(*video.shape[:2], -1)

    def _read_batch(self, frames: torch.Tensor) -> np.ndarray:
        try:
            found = self.function(frames.to(self.device))
        except Exception as error:
            raise ValueError(f"{self.name}: what it gave raised {error_line(error)}") from error
        shape = tuple(getattr(found, "shape", ()))
        if not isinstance(found, torch.Tensor) or len(shape) != 2 or shape[0] != len(frames) or not shape[1]:
            got = f"a tensor {list(shape)}" if isinstance(found, torch.Tensor) else type(found).__name__
            raise ValueError(f"{self.name}: {len(frames)} frames gave {got}, expected features [b d] of each")
        if not torch.isfinite(found).all():
            raise ValueError(f"{self.name} gave features that are not finite (NaN or infinity)")
        return found.double().cpu().numpy()


def open_features(name: str, device: str) -> FeatureNetwork:
    """The network of that name, or that the function of that file gives; ValueError where there is none."""
    if name == NAME:
        network = EfficientNetFeatures()
        return FeatureNetwork(name, network.to(device).eval(), {WEIGHTS: network.sha256}, device)
    if not ADAPTER.fullmatch(name):
        raise ValueError(f"--features is {NAME} or FILE.py:FUNCTION, got {name!r}")
    function, code = run_function(find(name, {}), {})
    if not callable(function):
        raise ValueError(
            f"{name} gave a {type(function).__name__}, expected a torch module or another callable, "
            "[b c h w] -> [b d]"
        )
    if isinstance(function, torch.nn.Module):
        function = function.to(device).eval()
    return FeatureNetwork(name, function, {file.name: file.text for file in code}, device)
