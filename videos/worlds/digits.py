"""Two handwritten digits that move and bounce in the frame. Their direction after a wall is partly random.

    batch = clips(seeds=range(8), frames=12)     # 16 x 16 grey, positions and velocities known

The digits are scikit-learn's 8 x 8 scans. They move by 0.7 to 1.6 pixels per frame and are
drawn with bilinear weights. A wall reflects a digit; with probability 1/2 its angle is random instead.
Training and validation clips (videos.VALIDATION_SEED) use different scans.
"""

from collections.abc import Iterable, Mapping
from functools import cache

import numpy as np
from jaxtyping import Float

from framelens import videos
from framelens.records.extras import extra
from framelens.videos.targets import Target, grid, token_centres

SIDE, DIGIT, DIGITS = 16, 8, 2
STATE_ERROR = "distance of the ink's centre from its true place (pixels)"
SHAPE = (1, SIDE, SIDE)
CONDITIONS = 0


def clips(seeds: Iterable[int], frames: int) -> videos.Clips:
    """One clip per seed: video [b f 1 16 16] in [-1, 1], no actions.

    state: position [b f 2 2] (digit; row, column of its corner in pixels), velocity [b f 2 2] (pixels a
    frame, the one that led to this frame), label [b f 2] (which digit), bounced [b f 2] (met a wall),
    ink_centre [b f 2] (row, column of the mean place of both digits' ink).
    """
    return videos.stack([_clip(seed, frames) for seed in seeds])


def state_error(
    video: Float[np.ndarray, "b f 1 16 16"], state: Mapping[str, np.ndarray]
) -> Float[np.ndarray, "b f"]:
    """The distance, in pixels, of the centre of a frame's ink from that of the true frame.

    The ink of both digits counts together: a frame does not show which of two overlapping digits is where.
    """
    return np.linalg.norm(_centre(video) - state["ink_centre"], axis=-1)


def targets(clips: videos.Clips, patch: int) -> dict[str, Target]:
    """Targets for linear probes of these clips, by name, for tokens of `patch` pixels.

    The order of the digits has no meaning, so targets of a digit are defined if exactly one covers a token.
    """
    middles = token_centres(SIDE, patch)
    away = clips.state["position"][:, :, None] + (DIGIT - 1) / 2 - grid(middles)[:, None]  # [b f n digit 2]
    covers = np.all(np.abs(away) < DIGIT / 2, axis=-1)

    def of_the_one(values: np.ndarray) -> np.ndarray:
        chosen = (covers[..., None] * values).sum(-2)
        return np.where((covers.sum(-1) == 1)[..., None], chosen, np.nan)

    b, f = clips.video.shape[:2]
    cells = clips.video[:, :, 0].reshape(b, f, len(middles), patch, len(middles), patch)
    ink = (cells.mean(axis=(3, 5)).reshape(b, f, -1, 1) + 1) / 2
    before = np.concatenate([np.full_like(ink[:, :1], np.nan), ink[:, :-1]], axis=1)
    label, velocity = clips.state["label"][..., None], clips.state["velocity"]
    return {
        "ink": Target(ink, "in view", "mean brightness of the token"),
        "ink before": Target(before, "out of view", "mean brightness of the token in the last frame"),
        "digit's label": Target(
            of_the_one(label[:, :, None]),
            "in view",
            "which digit covers the token",
            classes=tuple("0123456789"),
        ),
        "digit's place": Target(
            of_the_one(away),
            "motion",
            "from the token to the middle of its digit, rows and columns",
            "pixels",
        ),
        "digit's velocity": Target(
            of_the_one(velocity[:, :, None]), "motion", "of the digit that covers the token", "pixels a frame"
        ),
    }


def _centre(video: np.ndarray) -> np.ndarray:
    """The mean position (row, column) of the ink in each frame [... 1 h w]."""
    ink = (np.clip(video[..., 0, :, :], -1, 1) + 1) / 2 + 1e-6
    places = np.moveaxis(np.indices((SIDE, SIDE)), 0, -1)
    return (ink[..., None] * places).sum(axis=(-3, -2)) / ink.sum(axis=(-2, -1))[..., None]


@cache
def _scans(validation: bool) -> tuple[np.ndarray, np.ndarray]:
    with extra("videos"):
        from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images = np.asarray(pixels, np.float32).reshape(-1, DIGIT, DIGIT) / 16
    held_out = np.arange(len(images)) % 5 == 0
    keep = held_out if validation else ~held_out
    return images[keep], np.asarray(labels)[keep]


def _clip(seed: int, frames: int) -> videos.Clips:
    rng = np.random.default_rng((0xD161, seed))
    images, labels = _scans(seed >= videos.VALIDATION_SEED)
    chosen = rng.integers(len(images), size=DIGITS)
    position = rng.uniform(0, SIDE - DIGIT, size=(DIGITS, 2))
    velocity = np.stack([_velocity(rng) for _ in range(DIGITS)])
    video = np.zeros((frames, 1, SIDE, SIDE), np.float32)
    states = []
    bounced = np.zeros(DIGITS, bool)
    for frame in range(frames):
        for digit in range(DIGITS):
            if frame:
                position[digit], velocity[digit], bounced[digit] = _move(
                    rng, position[digit], velocity[digit]
                )
            _draw(video[frame, 0], images[chosen[digit]], position[digit])
        states.append((position.copy(), velocity.copy(), bounced.copy()))
    positions, velocities, bounces = (np.stack(values) for values in zip(*states, strict=True))
    label = np.broadcast_to(labels[chosen], (frames, DIGITS))
    state = {"position": positions, "velocity": velocities, "label": label, "bounced": bounces}
    video = video * 2 - 1
    return videos.Clips(video, None, state | {"ink_centre": _centre(video)})


def _velocity(rng: np.random.Generator) -> np.ndarray:
    angle = rng.uniform(0, 2 * np.pi)
    return rng.uniform(0.7, 1.6) * np.array([np.sin(angle), np.cos(angle)])


def _move(rng, position: np.ndarray, velocity: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
    """Position and velocity one frame later, and whether the digit met a wall."""
    wall = SIDE - DIGIT
    moved = position + velocity
    outside = (moved < 0) | (moved > wall)
    if not outside.any():
        return moved, velocity, False
    reflected = np.where(outside, -velocity, velocity)
    if rng.random() < 0.5:
        fresh = np.abs(_velocity(rng))
        reflected = np.where(reflected < 0, -fresh, fresh)
    folded = np.where(moved < 0, -moved, np.where(moved > wall, 2 * wall - moved, moved))
    return np.clip(folded, 0, wall), reflected, True


def _draw(canvas: np.ndarray, image: np.ndarray, position: np.ndarray) -> None:
    """Adds a digit at a sub-pixel position, with bilinear weights. Brightness saturates at 1."""
    corner = np.minimum(position.astype(int), SIDE - DIGIT)
    down, right = position - corner
    padded = np.pad(image, 1)
    moved = (
        (1 - down) * (1 - right) * padded[1:, 1:]
        + (1 - down) * right * padded[1:, :-1]
        + down * (1 - right) * padded[:-1, 1:]
        + down * right * padded[:-1, :-1]
    )
    rows, cols = (slice(c, min(c + DIGIT + 1, SIDE)) for c in corner)
    region = canvas[rows, cols]
    region += moved[: region.shape[0], : region.shape[1]]
    np.minimum(region, 1.0, out=region)
