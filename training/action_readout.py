"""Actions read from pairs of frames: whether a generated video does what its actions say.

readout = fit_actions(world.clips(range(256), frames))        # true clips of training seeds
scores = score_actions(readout, free, clips, context=4)       # accuracy on true frames and on a free run

The read-out sees how well one frame fits the frame before it, moved by each of up to 11 x 11 displacements,
relative to their mean: an action that moves the camera or what fills the frame shows in it. A ridge
regression on these errors gives one value per action; the largest one is read. Its accuracy on true held-out
frames says whether it can be trusted in a world.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from framelens.training.measures import ScoreMean, average
from framelens.videos import Clips

TRAINING_CLIPS = 256
FARTHEST = 5
"""Pixels of the largest displacement; a quarter of the smaller side of a frame at most."""
RIDGE = 1e-3
"""Penalty on standardised features, as a share of the number of pairs."""


class ActionReadout(NamedTuple):
    """An affine map of standardised features to one value per action."""

    centre: np.ndarray
    spread: np.ndarray
    weights: np.ndarray
    shares: np.ndarray

    def read(self, video: Float[np.ndarray, "b f c h w"]) -> Int[np.ndarray, "b pair"]:
        """The action that led to each frame but the first."""
        features = (_features(video) - self.centre) / self.spread
        return (features @ self.weights + self.shares).argmax(axis=-1)


def fit_actions(clips: Clips) -> ActionReadout:
    """The read-out fitted to all pairs of consecutive frames of these clips, which have actions."""
    assert clips.actions is not None
    features = _features(clips.video)
    flat = features.reshape(-1, features.shape[-1])
    chosen = np.eye(int(clips.actions.max()) + 1)[clips.actions[:, 1:].reshape(-1)]
    centre, spread, shares = flat.mean(axis=0), flat.std(axis=0), chosen.mean(axis=0)
    spread = np.where(spread > 0, spread, 1)
    scaled = (flat - centre) / spread
    gram = scaled.T @ scaled + RIDGE * len(scaled) * np.eye(scaled.shape[1])
    weights = np.linalg.solve(gram, scaled.T @ (chosen - shares))
    return ActionReadout(centre, spread, weights, shares)


def score_actions(
    readout: ActionReadout, free: np.ndarray, clips: Clips, context: int
) -> dict[str, ScoreMean]:
    """Shares of the frames from `context` on whose action is read: true, of a free run, and by a constant."""
    assert clips.actions is not None
    given = clips.actions[:, context:]
    generated = np.concatenate([clips.video[:, context - 1 : context], free], axis=1)
    read = {
        "true frames": readout.read(clips.video[:, context - 1 :]),
        "free run": readout.read(generated),
        "always the most frequent action": np.full_like(given, readout.shares.argmax()),
    }
    return {
        f"actions read, {name} (share)": average((found == given).astype(float))
        for name, found in read.items()
    }


def _features(video: np.ndarray) -> Float[np.ndarray, "b pair displacement"]:
    """Squared error of each frame against the frame before it, moved; relative to the displacements' mean."""
    height, width = video.shape[-2:]
    reach = min(FARTHEST, min(height, width) // 4)
    steps = range(-reach, reach + 1)
    before, after = video[:, :-1], video[:, 1:, :, reach : height - reach, reach : width - reach]
    errors = [
        ((after - _cut(before, reach + rows, reach + cols, after.shape)) ** 2).mean(axis=(2, 3, 4))
        for rows in steps
        for cols in steps
    ]
    found = np.stack(errors, axis=-1).astype(np.float64)
    return found / np.maximum(found.mean(axis=-1, keepdims=True), 1e-12)


def _cut(video: np.ndarray, row: int, col: int, shape: tuple[int, ...]) -> np.ndarray:
    """The part of each frame that begins there and has the shape's height and width."""
    return video[..., row : row + shape[-2], col : col + shape[-1]]
