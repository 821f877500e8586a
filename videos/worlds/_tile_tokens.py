"""The tile world as the tokens of its frames see it: the tile and the balls behind each of them."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from framelens.videos.targets import grid


def tiles_of_tokens(
    state: Mapping[str, np.ndarray], middles: Float[np.ndarray, " side"], tile: int, view: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the tile behind each token's middle, [b f n] each: kind, age and whether it is covered.

    Age is how many frames ago it was last in view, NaN if it never was. The agent or a ball covers.
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
    """Which balls cover a good part of each token [b f n ball], and the summed velocity of those [b f n 2].

    A ball does if its middle is nearer to the token's, in rows and columns, than half a tile and a pixel.
    """
    extent = tile * state["map"].shape[-1]
    corner = tile * (state["position"] - view // 2)
    in_view = (state["ball_position"] + (tile - 1) / 2 - corner[:, :, None]) % extent
    apart = np.abs(in_view[:, :, None] - grid(middles)[:, None])
    near = (np.minimum(apart, extent - apart) < tile / 2 + 1).all(-1)
    velocity = (near[..., None] * state["ball_velocity"][:, :, None]).sum(-2)
    return near, velocity.astype(float)
