"""Walks through rooms in the Doom engine: a real 3D game with memory (ViZDoom and Freedoom, extra `worlds`).

    batch = clips(seeds=range(8), frames=12)     # 24 x 32 RGB, actions and state known

Each clip has a map of its own: four rooms with passages, and walls of panels with different textures. The
agent turns by 30 degrees or takes a step of about 55 units; it often turns back, so what comes into view was
often seen before. Clips are made once and kept (videos/made_once.py); training and validation have different
maps.
"""

from collections.abc import Iterable

import numpy as np

from framelens import videos
from framelens.records.progress import progress_bar
from framelens.videos.made_once import MadeOnce
from framelens.videos.targets import Target
from framelens.videos.worlds._doom_game import ACTIONS, PRESSED, TICS, TURN, open_game, walk
from framelens.videos.worlds._doom_maps import draw_rooms
from framelens.videos.worlds._doom_targets import targets_of
from framelens.videos.worlds._doom_views import COLUMNS, ROWS, look

__all__ = [
    "ACTIONS", "CONDITIONS", "KEPT", "SHAPE", "clips", "draw_rooms", "look", "open_game", "targets", "walk",
]  # fmt: skip
SHAPE = (3, ROWS, COLUMNS)
CONDITIONS = len(ACTIONS)
FRAMES = 16
"""Frames of the longest clips."""
SETTINGS = {"version": 2, "turn": TURN, "tics": TICS, "pressed": PRESSED, "frames": FRAMES}


def clips(seeds: Iterable[int], frames: int) -> videos.Clips:
    """One clip per seed: video [b f 3 24 32] in [-1, 1], actions [b f] (indices into ACTIONS) and state.

    state: position [b f 2] (x, y, map units), angle [b f] (degrees, counterclockwise), objects [b f 4 3]
    (kind, x, y of each object of the map), and what describe_views of _doom_views.py gives. At most 16
    frames; a training has 2,048 different clips. MissingPackage where clips must be made without vizdoom.
    """
    return KEPT.clips(seeds, frames)


def targets(clips: videos.Clips, patch: int) -> dict[str, Target]:
    """Targets for linear probes of these clips, by name, for tokens of `patch` pixels."""
    return targets_of(clips, patch)


def _make(seeds: list[int]) -> dict[str, np.ndarray]:
    rngs = [np.random.default_rng((0xD003, seed)) for seed in seeds]
    plans = [draw_rooms(rng, TURN) for rng in rngs]
    with open_game(plans) as game:
        bar = progress_bar(
            zip(plans, rngs, strict=True), total=len(plans), unit="clip", desc="doom", leave=False
        )
        walks = [walk(game, number, plan, rng, FRAMES) for number, (plan, rng) in enumerate(bar)]
    return {name: np.stack([each[name] for each in walks]) for name in walks[0]}


KEPT = MadeOnce("doom", SETTINGS, FRAMES, _make)
