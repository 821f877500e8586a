"""A closed panorama of tiles without actions: a prompt says in which direction the camera turns.

    batch = clips(seeds=range(8), frames=12)     # 20 x 20 RGB, prompts [b 1 8] and the whole state known

The map is a torus of MAP x MAP tiles. At each frame the camera goes on by one tile, always in the same of
eight directions. What comes into view was in view MAP - VIEW + 1 frames before, so from then on only memory
predicts it. Tiles, balls and the agent in the middle are those of the tile world.
"""

from collections.abc import Iterable

import numpy as np

from framelens import videos
from framelens.videos.targets import Target
from framelens.videos.worlds import tiles
from framelens.videos.worlds._tile_film import film_walk
from framelens.videos.worlds.tiles import KINDS, SHAPE, STATE_ERROR, state_error

__all__ = ["CONDITIONS", "PROMPT", "SHAPE", "STATE_ERROR", "clips", "state_error", "targets"]
MAP = 8  # tiles around the torus
DIRECTIONS = {
    "up": (-1, 0),
    "down": (1, 0),
    "left": (0, -1),
    "right": (0, 1),
    "up left": (-1, -1),
    "up right": (-1, 1),
    "down left": (1, -1),
    "down right": (1, 1),
}
"""Rows and columns by which the camera goes on, in tiles a frame."""
CONDITIONS = 0
PROMPT = (1, len(DIRECTIONS))
"""Tokens and width of a prompt: a 1 at the direction."""


def clips(seeds: Iterable[int], frames: int) -> videos.Clips:
    """One clip per seed: video [b f 3 20 20] in [-1, 1], prompts as text [b 1 8], and the state.

    state: as in the tile world, but the map is [b f 8 8]; direction [b f], an index into DIRECTIONS.
    """
    return videos.stack([_clip(np.random.default_rng((0x9A40, seed)), frames) for seed in seeds])


def targets(clips: videos.Clips, patch: int) -> dict[str, Target]:
    """Targets for linear probes of these clips, by name: those of the tile world, and the direction."""
    values = clips.state["direction"][:, :, None, None].astype(float)
    what = "where the camera goes; the prompt says it"
    direction = Target(values, "motion", what, classes=tuple(DIRECTIONS))
    return tiles.state_targets(clips, patch, {"direction": direction})


def _clip(rng: np.random.Generator, frames: int) -> videos.Clips:
    kinds = rng.integers(KINDS, size=(MAP, MAP))
    chosen = int(rng.integers(len(DIRECTIONS)))
    step = np.array(list(DIRECTIONS.values()))[chosen]
    positions = (rng.integers(MAP, size=2) + np.arange(frames)[:, None] * step) % MAP
    velocity = np.repeat(step[None], frames, axis=0)
    velocity[0] = 0  # nothing led to the first frame
    video, state = film_walk(rng, kinds, positions, velocity)
    prompt = np.zeros(PROMPT, np.float32)
    prompt[0, chosen] = 1
    return videos.Clips(video, state=state | {"direction": np.full(frames, chosen)}, text=prompt)
