"""The tile world without actions: a prompt says at which kinds of tile the agent turns.

    batch = clips(seeds=range(8), frames=12)     # 20 x 20 RGB, prompts [b 2 8] and the whole state known

The agent walks straight on. On a tile of one of TURN_BACK kinds it turns back, on one of another kind it
turns to its right. The prompt has a token for either, with a 1 for each of its kinds. Two white pixels beside
the agent point to where it goes next, so the last frame and the prompt determine the walk, and only memory
predicts what comes into view again. Map, balls and camera are those of the tile world.
"""

from collections.abc import Iterable

import numpy as np

from framelens import videos
from framelens.videos.targets import Target
from framelens.videos.worlds import tiles
from framelens.videos.worlds.tiles import KINDS, MAP, MOVES, REVERSE, SHAPE, STATE_ERROR, state_error

__all__ = ["CONDITIONS", "PROMPT", "SHAPE", "STATE_ERROR", "clips", "state_error", "targets"]
CONDITIONS = 0
TURN_BACK = 2
"""How many of the kinds turn the agent back; one more turns it to its right."""
PROMPT = (2, KINDS)
"""Tokens and width of a prompt: the kinds that turn the agent back, the kind that turns it to its right."""
TO_THE_RIGHT = np.array([0, 4, 3, 1, 2])
"""The heading after a turn to the right, by heading (tiles.ACTIONS)."""
HEADINGS = tiles.ACTIONS[1:]


def clips(seeds: Iterable[int], frames: int) -> videos.Clips:
    """One clip per seed: video [b f 3 20 20] in [-1, 1], prompts as text [b 2 8], and the state.

    state: as in the tile world, and heading [b f], the direction to which the agent points (HEADINGS).
    """
    return videos.stack([_clip(np.random.default_rng((0x9807, seed)), frames) for seed in seeds])


def targets(clips: videos.Clips, patch: int) -> dict[str, Target]:
    """Targets for linear probes of these clips, by name: those of the tile world, and the heading."""
    values = clips.state["heading"][:, :, None, None].astype(float)
    heading = Target(values, "motion", "the direction to which the agent points", classes=HEADINGS)
    return {"heading": heading} | tiles.state_targets(clips, patch)


def _clip(rng: np.random.Generator, frames: int) -> videos.Clips:
    kinds = rng.integers(KINDS, size=(MAP, MAP))
    chosen = rng.permutation(KINDS)[: TURN_BACK + 1]
    prompt = np.zeros(PROMPT, np.float32)
    prompt[0, chosen[:TURN_BACK]] = prompt[1, chosen[TURN_BACK:]] = 1
    position, heading = rng.integers(MAP, size=2), int(rng.integers(1, len(MOVES)))
    positions, headings = [], []
    for _ in range(frames):
        kind = kinds[tuple(position)]
        heading = int(
            REVERSE[heading] if prompt[0, kind] else TO_THE_RIGHT[heading] if prompt[1, kind] else heading
        )
        positions.append(position)
        headings.append(heading)
        position = (position + MOVES[heading]) % MAP
    moves = MOVES[np.array(headings)]
    velocity = np.concatenate([np.zeros_like(moves[:1]), moves[:-1]])
    video, state = tiles.film_walk(rng, kinds, np.stack(positions), velocity, pointing=moves)
    return videos.Clips(video, state=state | {"heading": np.array(headings) - 1}, text=prompt)
