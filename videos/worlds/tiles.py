"""A tile world with memory: an agent walks over a fixed random map, and the camera follows it.

    batch = clips(seeds=range(8), frames=12)     # 20 x 20 RGB, actions and the whole state known

The map is a torus of MAP x MAP tiles, each of one of KINDS kinds. The camera shows the VIEW x VIEW
tiles around the agent. An action moves the agent by one tile, so one row or column enters the view;
agents often turn back, so what enters was often seen before, and only memory can predict it.
Balls move over the map at constant velocity, in and out of view. The seed determines everything.
"""

from collections.abc import Iterable, Mapping

import numpy as np
from jaxtyping import Float

from framelens import videos
from framelens.videos.targets import Target, keep_where, of_whole_frame, token_centres
from framelens.videos.worlds._tile_film import KINDS, TEXTURES, TILE, VIEW, film_walk, texture_of
from framelens.videos.worlds._tile_tokens import balls_of_tokens, tiles_of_tokens

MAP = 12  # tiles around the torus
__all__ = ["CONDITIONS", "KINDS", "SHAPE", "STATE_ERROR", "TEXTURES", "TILE", "VIEW", "clips", "targets"]
ACTIONS = ("stay", "up", "down", "left", "right")
MOVES = np.array([[0, 0], [-1, 0], [1, 0], [0, -1], [0, 1]])  # rows, columns
REVERSE = np.array([0, 2, 1, 4, 3])
STATE_ERROR = "agent's distance from its true place (tiles)"
SHAPE = (3, TILE * VIEW, TILE * VIEW)
CONDITIONS = len(ACTIONS)


def clips(seeds: Iterable[int], frames: int) -> videos.Clips:
    """One clip per seed: video [b f 3 20 20] in [-1, 1], actions [b f] (indices into ACTIONS) and state.

    state: position [b f 2] of the agent on the map (row, column, tiles); velocity [b f 2] (tiles a frame);
    map [b f 12 12] kinds; ball_position [b f 2 2] (pixels, modulo the map); ball_velocity [b f 2 2] (pixels
    a frame); in_view_before [b f 20 20]: 0 never seen, 1 in view in the last frame, 2 seen only earlier,
    255 where the agent or a ball stands (no memory of the map is needed or possible there).
    """
    return videos.stack([_clip(np.random.default_rng((0x711E5, seed)), frames) for seed in seeds])


def state_error(
    video: Float[np.ndarray, "b f 3 20 20"], state: Mapping[str, np.ndarray]
) -> Float[np.ndarray, "b f"]:
    """Distance on the torus, in tiles, from the place that a frame shows to the true place of the agent.

    A frame shows the place whose true view is nearest to it. The agent's pixels are left out.
    """
    return np.stack([_distance(*clip) for clip in zip(video, state["map"], state["position"], strict=True)])


def targets(clips: videos.Clips, patch: int) -> dict[str, Target]:
    """Targets for linear probes of these clips, by name, for tokens of `patch` pixels.

    The kind of a tile is a target where neither the agent nor a ball covers the centre of the token.
    """
    action = Target(
        of_whole_frame(np.asarray(clips.actions)[..., None]),
        "motion",
        "the agent's move that led to the frame; the model is given it",
        classes=ACTIONS,
    )
    return state_targets(clips, patch, {"action": action})


def state_targets(clips: videos.Clips, patch: int, moves: dict[str, Target]) -> dict[str, Target]:
    """The targets that follow from the state, for any walk over such a map, and those of its moves."""
    centres = token_centres(TILE * VIEW, patch)
    return (
        _tile_targets(*tiles_of_tokens(clips.state, centres, TILE, VIEW))
        | _ball_targets(*balls_of_tokens(clips.state, centres, TILE, VIEW))
        | moves
        | _place_targets(clips)
    )


def _tile_targets(kind: np.ndarray, age: np.ndarray, covered: np.ndarray) -> dict[str, Target]:
    """The kind and age of the tile that each token shows."""
    enters, kinds = age != 1, tuple(map(str, range(KINDS)))
    looks = {
        "tile in view before": (age == 1, "in view", "in view in the last frame too"),
        "tile seen earlier": (np.isfinite(age) & enters, "out of view", "out of view since before that"),
        "tile never seen": (np.isnan(age), "control", "never in view: knowable from this frame alone"),
    }
    by_look = {
        name: Target(
            keep_where(kind, where & ~covered), group, f"kind of a tile that was {text}", classes=kinds
        )
        for name, (where, group, text) in looks.items()
    }
    return by_look | {
        "seen before or not": Target(
            keep_where(np.isfinite(age), enters),
            "out of view",
            "whether a tile that enters the view was ever in view",
            classes=("never", "earlier"),
        ),
        "frames since seen": Target(
            keep_where(age, np.isfinite(age) & enters),
            "out of view",
            "age of the last view of a tile that comes back",
            "frames",
        ),
    }


def _ball_targets(near: np.ndarray, velocity: np.ndarray) -> dict[str, Target]:
    """Whether a ball is at each token, and its velocity."""
    return {
        "ball here": Target(
            np.any(near, axis=-1, keepdims=True).astype(float),
            "motion",
            "whether a ball covers a good part of the token",
            classes=("no", "yes"),
        ),
        "ball velocity": Target(
            np.where((near.sum(-1) == 1)[..., None], velocity, np.nan),
            "motion",
            "rows, columns; where one ball covers a good part of the token",
            "pixels a frame",
        ),
    }


def _place_targets(clips: videos.Clips) -> dict[str, Target]:
    """The agent's way and place, for the whole frame."""
    places = 2 * np.pi * clips.state["position"] / clips.state["map"].shape[-1]
    return {
        "way from the start": Target(
            of_whole_frame(np.cumsum(clips.state["velocity"], axis=1)),
            "motion",
            "the agent's moves so far, rows and columns",
            "tiles",
        ),
        "place on the map": Target(
            of_whole_frame(np.concatenate([np.sin(places), np.cos(places)], -1)),
            "control",
            "sines and cosines of the agent's row and column; no clip shows where on the map it begins",
        ),
    }


def _distance(video: np.ndarray, kinds: np.ndarray, positions: np.ndarray) -> np.ndarray:
    size = kinds.shape[-1]
    world, places = texture_of(kinds[0]), np.moveaxis(np.indices((size, size)), 0, -1).reshape(-1, 2)
    side, extent, half = TILE * VIEW, TILE * size, VIEW // 2
    spans = (TILE * (np.arange(size)[:, None] - half) + np.arange(side)) % extent
    views = np.stack([world[np.ix_(spans[row], spans[col])] for row, col in places]) * 2 - 1
    is_ground = np.ones((side, side, 1), bool)
    is_ground[half * TILE + 1 : half * TILE + 3, half * TILE + 1 : half * TILE + 3] = False
    views = (views * is_ground).reshape(len(places), -1)
    frames = (np.clip(video, -1, 1).transpose(0, 2, 3, 1) * is_ground).reshape(len(video), -1)
    nearest = ((views**2).sum(axis=1) - 2 * frames @ views.T).argmin(axis=1)
    apart = np.abs(places[nearest] - positions)
    return np.linalg.norm(np.minimum(apart, size - apart), axis=-1)


def _clip(rng: np.random.Generator, frames: int) -> videos.Clips:
    kinds = rng.integers(KINDS, size=(MAP, MAP))
    actions = _walk(rng, frames)
    positions = (rng.integers(MAP, size=2) + np.cumsum(MOVES[actions], axis=0)) % MAP
    video, state = film_walk(rng, kinds, positions, MOVES[actions])
    return videos.Clips(video, actions, state)


def _walk(rng: np.random.Generator, frames: int) -> np.ndarray:
    """Actions [f]: forward (45 %), back (35 %), sideways (15 %), stay (5 %). The first is "stay"."""
    actions, heading = [0], int(rng.integers(1, 5))
    for chance in rng.random(frames - 1):
        if chance < 0.05:
            actions.append(0)
            continue
        if chance < 0.40:
            heading = int(REVERSE[heading])
        elif chance < 0.55:
            heading = int(rng.choice([3, 4] if heading < 3 else [1, 2]))
        actions.append(heading)
    return np.array(actions)
