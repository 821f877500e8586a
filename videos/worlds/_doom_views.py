"""What the frames of a walk through a map of rooms show: depth, walls, and what was in view before.

    view = look(plan.walls, pose, COLUMNS)           # one frame's rays
    state = describe_views(plan, poses, labels)      # of all frames

A pose is x, y (map units) and the angle (degrees). Depth is the distance along the direction of view. The
camera is that of the engine: 90 degrees wide, and 1.2 times as many pixels per angle in rows as in columns.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from framelens.videos.worlds._doom_maps import EYE, HEIGHT, Rooms

NATIVE_ROWS, NATIVE_COLUMNS, SCALE = 120, 160, 5  # of the engine's picture, and how much smaller frames are
ROWS, COLUMNS = NATIVE_ROWS // SCALE, NATIVE_COLUMNS // SCALE
FOCUS = NATIVE_COLUMNS / 2  # pixels, along columns
TALL = 1.2  # pixels along rows per pixel along columns
ACROSS = (np.arange(COLUMNS) + 0.5) * SCALE / FOCUS - 1  # tangents of the angle to the right of each column
HORIZON = NATIVE_ROWS / 2 - 0.5  # the row at the height of the eyes, as the edges of walls show
UP = (HORIZON - (np.arange(ROWS) + 0.5) * SCALE) / (FOCUS * TALL)
FLAT = np.where(UP > 0, (HEIGHT - EYE) / UP, EYE / -UP)  # the depth of ceiling or floor in each row
LOWEST, HIGHEST = (HORIZON - NATIVE_ROWS) / (FOCUS * TALL), HORIZON / (FOCUS * TALL)
NEAR_ENOUGH = 0.97  # a place is hidden if something stands at less than this share of its depth
SAME_PLACE, SAME_ANGLE = 24.0, 10.0  # map units and degrees between two poses that show nearly the same


@dataclass(frozen=True)
class View:
    """The wall that each of some rays meets."""

    inverse: Float[np.ndarray, " rays"]
    """1 / depth; along a straight wall it is linear in the tangent of the ray."""
    wall: Int[np.ndarray, " rays"]
    """The index of the wall."""


def axes(angle: float) -> Float[np.ndarray, "2 2"]:
    """The directions of view and to the right of it."""
    turn = np.deg2rad(angle)
    return np.array([[np.cos(turn), np.sin(turn)], [np.sin(turn), -np.cos(turn)]])


def look(walls: Float[np.ndarray, "n 4"], pose: np.ndarray, across: Float[np.ndarray, " rays"]) -> View:
    """The nearest wall along each ray, given as the tangent of its angle to the right."""
    ends = (walls.reshape(-1, 2, 2) - pose[:2]) @ axes(pose[2]).T  # [n end (ahead, right)]
    (a0, r0), (a1, r1) = ends[:, 0].T, ends[:, 1].T
    # On the wall: ahead = a0 + s (a1 - a0) and right = across * ahead.
    t = across[:, None]
    along = (t * a0 - r0) / np.where(np.abs(d := (r1 - r0) - t * (a1 - a0)) > 1e-9, d, np.nan)
    ahead = a0 + along * (a1 - a0)
    hit = (along >= -1e-6) & (along <= 1 + 1e-6) & (ahead > 1e-3)
    inverse = np.where(hit, 1 / np.where(hit, ahead, 1), 0)
    return View(inverse.max(1), inverse.argmax(1))


def free_way(plan: Rooms, pose: np.ndarray, angle: float) -> float:
    """How far one can go in that direction before a wall or an object is in the way (map units)."""
    heading = np.array([*pose[:2], angle])
    ways = []
    for aside in (-18.0, 0.0, 18.0):  # the player is 32 units wide
        at = heading.copy()
        at[:2] += axes(angle)[1] * aside
        ways.append(1 / max(look(plan.walls, at, np.zeros(1)).inverse[0], 1e-6))
    ahead, right = ((plan.objects[:, 1:] - pose[:2]) @ axes(angle).T).T
    in_the_way = (np.abs(right) < 36) & (ahead > 0)
    return float(min(ways + list(ahead[in_the_way] - 20)) - 16)


def describe_views(plan: Rooms, poses: Float[np.ndarray, "f 3"], shown: np.ndarray) -> dict[str, np.ndarray]:
    """The state of each frame; `shown` [f 120 160] is 1 + the number of the object that a pixel shows, or 0.

    depth [f 24 32] (map units, up to walls, floor or ceiling), wall [f 24 32] (the texture of the wall that a
    pixel shows; -1 for floor, ceiling and objects), object_pixels [f objects] (of 160 x 120), object_here
    [f 24 32] (as `shown`, of most of a pixel's area), age [f 24 32] (frames since the place was last in view,
    0 if it never was), in_view_before [f 24 32] (0 never, 1 in the last frame, 2 only earlier), same_view [f]
    (the last earlier frame with nearly this pose, -1 if there is none).
    """
    views = [look(plan.walls, pose, ACROSS) for pose in poses]
    depth = np.stack([_depth(view) for view in views])
    pixels, here = _count_objects(shown, len(plan.objects))
    edges = np.linspace(-1, 1, 2 * NATIVE_COLUMNS + 1)
    fine = [look(plan.walls, pose, edges).inverse for pose in poses]
    seen = np.zeros((len(poses), len(poses), ROWS, COLUMNS), bool)  # [frame, earlier frame, ...]
    for frame in range(len(poses)):
        places, heights = _places(poses[frame], depth[frame])
        for earlier in range(frame):
            on_walls = _is_in_view(places, heights, poses[earlier], edges, fine[earlier])
            visible = np.concatenate([[False], pixels[earlier] > 0])
            seen[frame, earlier] = np.where(here[frame] > 0, visible[here[frame]], on_walls)
    age = _ages(seen)
    is_wall = (depth < FLAT[:, None]) & (here == 0)
    return {
        "depth": depth.astype(np.float32),
        "wall": np.where(is_wall, np.stack([plan.textures[view.wall] for view in views])[:, None], -1),
        "object_pixels": pixels,
        "object_here": here,
        "age": age,
        "in_view_before": np.minimum(age, 2),
        "same_view": np.array([_same_view(poses, frame) for frame in range(len(poses))]),
    }


def _depth(view: View) -> np.ndarray:
    return np.minimum(FLAT[:, None], 1 / view.inverse[None])


def _places(pose: np.ndarray, depth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The places [row col 2] and heights above the eyes [row col] that the pixels show."""
    ahead, right = axes(pose[2])
    places = pose[:2] + depth[..., None] * (ahead + ACROSS[None, :, None] * right)
    return places, depth * UP[:, None]


def _is_in_view(
    places: np.ndarray, heights: np.ndarray, pose: np.ndarray, edges: np.ndarray, inverse: np.ndarray
) -> np.ndarray:
    """Whether each place is on that frame's picture and no wall is before it."""
    ahead, right = np.moveaxis((places - pose[:2]) @ axes(pose[2]).T, -1, 0)
    in_front = ahead > 1.0
    depth = np.where(in_front, ahead, 1.0)
    across, up = right / depth, heights / depth
    after = np.searchsorted(edges, across).clip(1, len(edges) - 1)
    nearest = np.minimum(inverse[after - 1], inverse[after])  # the further wall at an edge
    return (
        in_front
        & (np.abs(across) <= 1)
        & (LOWEST <= up)
        & (up <= HIGHEST)
        & (1 / depth >= NEAR_ENOUGH * nearest)
    )


def _ages(seen: np.ndarray) -> np.ndarray:
    """Frames since each place was last in view, 0 if it never was, from [f earlier row col]."""
    frames = np.arange(len(seen))
    ages = frames[:, None] - frames
    found = np.where(seen & (ages > 0)[..., None, None], ages[..., None, None], len(seen)).min(1)
    return np.where(found < len(seen), found, 0).astype(np.uint8)


def _count_objects(shown: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The pixels [f object] that show each object, and which one covers most of a small pixel [f row col]."""
    cells = shown.reshape(len(shown), ROWS, SCALE, COLUMNS, SCALE)
    pixels, here = np.zeros((len(shown), count), int), np.zeros((len(shown), ROWS, COLUMNS), np.uint8)
    for number in range(count):
        covered = (cells == number + 1).sum((2, 4))
        pixels[:, number] = covered.sum((1, 2))
        here[2 * covered > SCALE**2] = number + 1
    return pixels, here


def _same_view(poses: np.ndarray, frame: int) -> int:
    apart = np.linalg.norm(poses[:frame, :2] - poses[frame, :2], axis=1)
    turned = np.abs((poses[:frame, 2] - poses[frame, 2] + 180) % 360 - 180)
    same = np.flatnonzero((apart < SAME_PLACE) & (turned < SAME_ANGLE))
    return int(same[-1]) if len(same) else -1
