"""Breakout on the Atari 2600: fast motion, walls that reflect, bricks that vanish (extra `worlds`).

    batch = clips(seeds=range(8), frames=12)     # 36 x 36 RGB, actions and state known

A rule follows the ball, with one random action in five. A frame is four of the console's, so the ball moves
by 1 to 3 pixels. Clips are made once and kept (videos/made_once.py). The game has no chance of its own:
training and validation differ in where a clip begins and in the random actions.
"""

from collections.abc import Iterable, Mapping

import numpy as np
from jaxtyping import Float

from framelens import videos
from framelens.records.progress import progress_bar
from framelens.videos.made_once import MadeOnce
from framelens.videos.targets import Target, grid, token_centres
from framelens.videos.worlds._breakout import (
    ACTIONS,
    BRICK_COLUMNS,
    BRICK_HEIGHT,
    BRICK_ROWS,
    BRICK_TOP,
    BRICK_WIDTH,
    LEFT,
    NO_BALL,
    PIXELS,
    SCALE,
    TICS,
    TOP,
    open_game,
    play,
)

__all__ = ["ACTIONS", "CONDITIONS", "KEPT", "SHAPE", "STATE_ERROR", "clips", "state_error", "targets"]
STATE_ERROR = "paddle's distance from its true place (pixels)"
SHAPE = (3, PIXELS, PIXELS)
CONDITIONS = len(ACTIONS)
FRAMES = 24
"""Frames of the longest clips."""
PADDLE_ROW = PIXELS - 1
SETTINGS = {"version": 1, "game": "breakout", "tics": TICS, "frames": FRAMES}


def clips(seeds: Iterable[int], frames: int) -> videos.Clips:
    """One clip per seed: video [b f 3 36 36] in [-1, 1], actions [b f] (indices into ACTIONS) and state.

    state: ball [b f 2] (row and column of its middle in pixels of the frame; -1 where no ball is in the
    frame, also while it is above the bricks), paddle [b f] (column of the middle of what is seen of it),
    bricks [b f 6 18] (which stand), lives [b f]. At most 24 frames; a training has 2,048 different clips.
    MissingPackage where clips must be made without ale-py.
    """
    return KEPT.clips(seeds, frames)


def state_error(
    video: Float[np.ndarray, "b f 3 36 36"], state: Mapping[str, np.ndarray]
) -> Float[np.ndarray, "b f"]:
    """Distance, in pixels, of the middle of the light in the lowest row from that of the true paddle."""
    light = (np.clip(video[:, :, :, PADDLE_ROW], -1, 1).mean(2) + 1) / 2 + 1e-6
    return np.abs((light * np.arange(PIXELS)).sum(-1) / light.sum(-1) - state["paddle"])


def targets(clips: videos.Clips, patch: int) -> dict[str, Target]:
    """Targets for linear probes of these clips, by name, for tokens of `patch` pixels."""
    middles = grid(token_centres(PIXELS, patch))
    ball = np.where(clips.state["ball"] == NO_BALL, np.nan, clips.state["ball"])
    away = ball[:, :, None] - middles
    near = ((-patch / 2 <= away) & (away < patch / 2)).all(-1, keepdims=True)
    before = np.concatenate([np.full_like(ball[:, :1], np.nan), ball[:, :-1]], 1)
    velocity = (ball - before)[:, :, None]
    return {
        "brick here": _bricks(clips.state["bricks"], middles),
        "paddle's place": Target(clips.state["paddle"][..., None, None], "in view", "its column", "pixels"),
        "ball here": Target(
            near.astype(float), "motion", "whether the ball's middle is in the token", classes=("no", "yes")
        ),
        "ball's place": Target(ball[:, :, None], "motion", "row and column, where it is in view", "pixels"),
        "ball velocity": Target(
            np.where(near, velocity, np.nan),
            "motion",
            "rows, columns; at the token that shows the ball",
            "pixels a frame",
        ),
        "ball's place before": Target(before[:, :, None], "out of view", "in the last frame", "pixels"),
        "action": Target(
            np.asarray(clips.actions, float)[..., None, None],
            "motion",
            "the move that led to the frame; the model is given it",
            classes=ACTIONS,
        ),
    }


def _bricks(bricks: np.ndarray, middles: np.ndarray) -> Target:
    """Whether the brick at a token's middle stands, for tokens where bricks can be."""
    places = (middles + 0.5) * SCALE + (TOP, LEFT)  # in the console's picture
    rows = ((places[:, 0] - BRICK_TOP) // BRICK_HEIGHT).astype(int)
    columns = ((places[:, 1] - LEFT) // BRICK_WIDTH).astype(int).clip(0, BRICK_COLUMNS - 1)
    inside = (rows >= 0) & (rows < BRICK_ROWS)
    stands = bricks[:, :, rows.clip(0, BRICK_ROWS - 1), columns].astype(float)
    return Target(
        np.where(inside, stands, np.nan)[..., None],
        "in view",
        "whether the brick at the token's middle stands",
        classes=("gone", "stands"),
    )


def _make(seeds: list[int]) -> dict[str, np.ndarray]:
    game = open_game()
    bar = progress_bar(seeds, unit="clip", desc="atari", leave=False)
    clips = [play(game, np.random.default_rng((0xA7A21, seed)), FRAMES) for seed in bar]
    return {name: np.stack([clip[name] for clip in clips]) for name in clips[0]}


KEPT = MadeOnce("atari", SETTINGS, FRAMES, _make)
