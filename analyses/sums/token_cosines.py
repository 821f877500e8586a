"""Cosines of single tokens between steps, and how much of the norm one token or one channel has.

    keep = TokenSketch(tokens, width, device)        # the same object for every step of a layer
    kept = keep(features)                            # [b n d] -> [b m+1 k]: chosen tokens, then their median
    token_cosines(kept_of_all_steps)                 # [*l s m+1 k] -> two measures [*l s s]

A cosine of whole feature maps is decided by the tokens of largest norm: one massive token that is the same at
two steps makes it near 1, whatever the other tokens do. Here each token has one cosine and counts the same.
Its reference is the median token, channel by channel, which a few massive tokens do not move.
"""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from framelens.analyses.cost import FLOAT32

TOKENS, DIRECTIONS = 64, 64
"""Tokens that are compared, spread evenly, and random directions to which wider tokens are projected. The
error of one token's cosine c is about (1 - c²) / 8, that of the mean of 64 about (1 - c²) / 64."""


class TokenSketch:
    """A fixed choice of tokens and of directions, for features of one size."""

    def __init__(self, tokens: int, width: int, device: torch.device | str = "cpu", seed: int = 0):
        self.chosen = choose_tokens(tokens).to(device)
        self.directions: Tensor | None = None
        if width > DIRECTIONS:
            draws = torch.Generator().manual_seed(seed * 1_000_003 + width)
            directions = torch.randn(width, DIRECTIONS, generator=draws) / DIRECTIONS**0.5
            self.directions = directions.to(device)

    @staticmethod
    def size(tokens: int, width: int) -> tuple[int, int]:
        """Chosen tokens and numbers of each of them."""
        return min(tokens, TOKENS), min(width, DIRECTIONS)

    @staticmethod
    def products(tokens: int, width: int) -> int:
        """Operations of the projection of one map, a multiply-add counts as two."""
        return 2 * (min(tokens, TOKENS) + 1) * width * DIRECTIONS if width > DIRECTIONS else 0

    @staticmethod
    def kept_bytes(tokens: int, width: int) -> int:
        """Bytes of the directions and of the indices of tokens."""
        return 8 * min(tokens, TOKENS) + (FLOAT32 * width * DIRECTIONS if width > DIRECTIONS else 0)

    def __call__(self, features: Float[Tensor, "b n d"]) -> Float[Tensor, "b m k"]:
        """The chosen tokens, and as the last row their median, channel by channel."""
        rows = with_median(features.index_select(1, self.chosen).float())
        return rows if self.directions is None else rows @ self.directions


def choose_tokens(tokens: int) -> Int[Tensor, " m"]:
    """Indices of at most TOKENS tokens, spread evenly."""
    return torch.linspace(0, tokens - 1, min(tokens, TOKENS)).round().long()


def with_median(tokens: Float[Tensor, "*l n d"]) -> Float[Tensor, "*l m d"]:
    """The tokens, and after them the median of all, channel by channel."""
    return torch.cat([tokens, _median(tokens)], -2)


def _median(tokens: Float[Tensor, "*l n d"]) -> Float[Tensor, "*l 1 d"]:
    """The value of `tokens.median(-2, keepdim=True)`, which takes five times as long on a CPU."""
    if tokens.device.type != "cpu" or tokens.isnan().any():
        return tokens.median(-2, keepdim=True).values
    middle = (tokens.shape[-2] - 1) // 2
    parted = np.partition(tokens.detach().numpy(), middle, axis=-2)
    return torch.from_numpy(parted[..., middle : middle + 1, :])


def token_cosines(rows: Float[Tensor, "*l s m k"]) -> dict[str, Float[Tensor, "*l s s"]]:
    """Mean and median over tokens of the cosine <x_s - c_s, x_t - c_s> / (|x_s - c_s| |x_t - c_s|).

    The reference step s comes first. x_s is a token at step s, and c_s the median token of that step, the
    last row. Sums run in float64. A token that equals the median has no direction and is left out; NaN where
    all are.
    """
    rows = rows.double().transpose(-3, -2)  # [*l m s k]
    x, centre = rows[..., :-1, :, :], rows[..., -1:, :, :]
    gram, with_centre = x @ x.mT, x @ centre.mT  # [*l n s t], token at s and median token of t
    own, squares = with_centre.diagonal(dim1=-2, dim2=-1), gram.diagonal(dim1=-2, dim2=-1)
    centre_squares = centre.square().sum(-1)[..., :, None]
    dot = gram - own[..., :, None] - with_centre.mT + centre_squares
    distances = (squares[..., None, :] - 2 * with_centre.mT + centre_squares).clamp(min=0)
    lengths = distances * distances.diagonal(dim1=-2, dim2=-1)[..., :, None]
    cosines = dot / lengths.sqrt()
    cosines = cosines.masked_fill(lengths <= 1e-20 * squares.amax(-1)[..., None, None] ** 2, torch.nan)
    median = cosines.nanmedian(-3).values
    return {"token_cosine": cosines.nanmean(-3), "token_cosine_median": median}


def token_cosine_products(steps: int, tokens: int, width: int) -> int:
    """Operations of `token_cosines` of that number of tokens, a multiply-add counts as two."""
    return 2 * 2 * steps**2 * tokens * width


def largest_shares(features: Float[Tensor, "*l n d"]) -> dict[str, Float[Tensor, "*l"]]:
    """The largest share of the squared norm of all features that one token has, and that one channel has."""
    shares = {}
    for name, axis in {"token_share": -1, "channel_share": -2}.items():
        squares = torch.linalg.vector_norm(features, dim=axis, dtype=torch.float32).square()
        shares[name] = squares.amax(-1) / squares.sum(-1)
    return shares
