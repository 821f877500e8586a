"""The state of the tile world at each token of a frame: its tile, and the balls that cover it."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from framelens.videos.targets import grid


def tiles_of_tokens(
    state: Mapping[str, np.ndarray], middles: Float[np.ndarray, " side"], tile: int, view: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Kind and age of the tile at each token's centre, and whether it is covered; [b f n] each.

    Age is the number of frames since the tile was last in view, NaN if it never was. The agent and the balls
    cover tiles.
    """
    position, size = state["position"], state["map"].shape[-1]
    frames, pixels, half = np.arange(position.shape[1]), middles.astype(int), view // 2
    places = (position[:, :, None] + grid(pixels // tile - half)) % size  # [b f n 2]
    kind = state["map"][np.arange(len(position))[:, None, None], 0, places[..., 0], places[..., 1]]
    apart = np.abs(places[:, :, None] - position[:, None, :, None])  # [b f earlier n 2]
    was_seen = (np.minimum(apart, size - apart) <= half).all(-1)
    ages = (frames[:, None] - frames)[None, :, :, None]
    age = np.where(was_seen & (ages > 0), ages, np.inf).min(2)
    covered = state["in_view_before"][:, :, pixels][..., pixels].reshape(kind.shape) == 255
    return kind, np.where(np.isfinite(age), age, np.nan), covered


def balls_of_tokens(
    state: Mapping[str, np.ndarray], middles: Float[np.ndarray, " side"], tile: int, view: int
) -> tuple[np.ndarray, np.ndarray]:
    """The balls that cover a good part of each token [b f n ball], and the sum of their velocities [b f n 2].

    A ball counts if the distance of its centre to the token's centre is less than half a tile and one pixel,
    in rows and in columns.
    """
    extent = tile * state["map"].shape[-1]
    corner = tile * (state["position"] - view // 2)
    in_view = (state["ball_position"] + (tile - 1) / 2 - corner[:, :, None]) % extent
    apart = np.abs(in_view[:, :, None] - grid(middles)[:, None])
    near = (np.minimum(apart, extent - apart) < tile / 2 + 1).all(-1)
    velocity = (near[..., None] * state["ball_velocity"][:, :, None]).sum(-2)
    return near, velocity.astype(float)
