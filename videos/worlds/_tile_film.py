"""Frames of a walk over a map of tiles, and what of the map was in view before."""

import numpy as np

TILE, VIEW = 4, 5  # pixels a tile, tiles in view
KINDS, BALLS = 8, 2
# Two colours a kind (ground, mark), far apart from each other and from the white agent and black balls.
COLOURS = np.array(
    [
        [[0.86, 0.20, 0.18], [0.45, 0.05, 0.10]],
        [[0.95, 0.60, 0.10], [0.60, 0.25, 0.00]],
        [[0.93, 0.88, 0.30], [0.65, 0.55, 0.05]],
        [[0.25, 0.70, 0.30], [0.05, 0.35, 0.15]],
        [[0.20, 0.75, 0.80], [0.05, 0.40, 0.45]],
        [[0.20, 0.40, 0.90], [0.05, 0.15, 0.50]],
        [[0.60, 0.35, 0.85], [0.30, 0.10, 0.50]],
        [[0.95, 0.60, 0.75], [0.65, 0.25, 0.45]],
    ]
)
MARKS = np.array(
    [
        [[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]],
        [[1, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 1]],
        [[0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0], [1, 1, 1, 1]],
        [[0, 1, 0, 1], [0, 1, 0, 1], [0, 1, 0, 1], [0, 1, 0, 1]],
        [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]],
        [[0, 0, 1, 1], [0, 0, 1, 1], [1, 1, 0, 0], [1, 1, 0, 0]],
        [[0, 1, 1, 0], [1, 1, 1, 1], [0, 1, 1, 0], [0, 0, 0, 0]],
        [[1, 1, 1, 1], [1, 0, 0, 1], [1, 0, 0, 1], [1, 1, 1, 1]],
    ]
)
TEXTURES = COLOURS[np.arange(KINDS)[:, None, None], MARKS].astype(np.float32)  # [kind, row, col, rgb]


def texture_of(kinds: np.ndarray) -> np.ndarray:
    """The whole map as a picture [row col rgb] in [0, 1]."""
    side = TILE * len(kinds)
    return TEXTURES[kinds].transpose(0, 2, 1, 3, 4).reshape(side, side, 3)


def film_walk(
    rng: np.random.Generator, kinds: np.ndarray, positions: np.ndarray, velocity: np.ndarray
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The frames and the state of a walk [f 2] over a square map of tiles, with balls that move over it."""
    frames, extent = len(positions), TILE * len(kinds)
    ball_velocity = rng.choice([-2, -1, 1, 2], size=(BALLS, 2))
    start = rng.integers(extent, size=(BALLS, 2))
    balls = (start + np.arange(frames)[:, None, None] * ball_velocity) % extent
    video, seen = _film(texture_of(kinds), positions, balls)
    state = {
        "position": positions,
        "velocity": velocity,
        "map": np.broadcast_to(kinds, (frames, *kinds.shape)),
        "ball_position": balls,
        "ball_velocity": np.broadcast_to(ball_velocity, balls.shape),
        "in_view_before": seen,
    }
    return video, state


def _film(world: np.ndarray, positions: np.ndarray, balls: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The camera's frames [f 3 h w], and for each pixel when its place was last seen [f h w]."""
    side, extent, half = TILE * VIEW, len(world), VIEW // 2
    last_seen = np.full((extent, extent), -(10**6))
    video, seen = [], []
    for frame, (position, ball) in enumerate(zip(positions, balls, strict=True)):
        rows, cols = ((TILE * (p - half) + np.arange(side)) % extent for p in position)
        age = frame - last_seen[np.ix_(rows, cols)]
        memory = np.where(age > frame, 0, np.where(age == 1, 1, 2)).astype(np.uint8)
        picture = world[np.ix_(rows, cols)].copy()
        for row, col in ball:
            inside = _disc((rows - row + 4) % extent - 4, (cols - col + 4) % extent - 4)
            picture[inside], memory[inside] = 0.0, 255
        middle = slice(half * TILE + 1, half * TILE + 3)
        picture[middle, middle], memory[middle, middle] = 1.0, 255
        last_seen[np.ix_(rows, cols)] = frame
        video.append(picture)
        seen.append(memory)
    return np.stack(video).transpose(0, 3, 1, 2).astype(np.float32) * 2 - 1, np.stack(seen)


def _disc(rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    return (rows[:, None] - 1.5) ** 2 + (cols[None] - 1.5) ** 2 <= 4.6
