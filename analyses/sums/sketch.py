"""CountSketches: short vectors whose inner products estimate those of whole feature maps.

    sketch = CountSketch(tokens, width, device)      # the same object for every step of a layer
    flat, kernel, squares = sketch(features, mean)   # [b n d], [b d]

Each entry of the features is multiplied by a fixed random sign and added to one
of M buckets (Charikar, Chen, Farach-Colton 2002). For two feature maps a, b with
the same hash, E[<S a, S b>] = <a, b> with variance at most (|a|²|b|² + <a, b>²) / M,
and the error of a cosine is about (1 - cosine²) / sqrt(M), which is smallest for similar maps.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import embedding_bag

from framelens.analyses.cost import FLOAT32

# Hashing single entries is a slow scatter. Here rows of 127 consecutive entries are added as a whole to
# one of 129 places: memory is read in order and no atomics are needed, so results repeat bit for bit.
# Entries at different positions in their rows never share a bucket; those at the same position do with
# probability 1/129. That is 1/M on average over pairs, if each channel occurs at all positions, which it
# does when the row length and the width have no common factor. Otherwise a single massive channel would
# fill few buckets.
BUCKETS, ROW_LENGTHS = 16384, (127, 131)
TOKEN_BUCKETS = 256


class CountSketch:
    """A fixed pair of hashes for features of one size: all entries to about 16384 buckets, tokens to 256."""

    def __init__(self, tokens: int, width: int, device: torch.device | str = "cpu", seed: int = 0):
        draws = torch.Generator().manual_seed(seed * 1_000_003 + tokens * 4099 + width)
        self.entries = tokens * width
        self.row = _row(width)
        rows, places = -(-self.entries // self.row), BUCKETS // self.row
        self.signs = _signs(self.entries, draws).to(device)
        self.rows = torch.randperm(rows, generator=draws).to(device)
        self.row_starts = _starts(rows, places).to(device)
        self.tokens = torch.randperm(tokens, generator=draws).to(device)
        self.token_signs = _signs(tokens, draws).to(device)
        self.token_starts = _starts(tokens, TOKEN_BUCKETS).to(device)

    @staticmethod
    def sizes(width: int) -> tuple[int, int]:
        """Numbers in the flat sketch and in the kernel's, of features of that width."""
        row = _row(width)
        return BUCKETS // row * row, (TOKEN_BUCKETS // 2) ** 2

    @staticmethod
    def products(width: int) -> int:
        """Operations of the kernel's matrix product, a multiply-add counts as two."""
        return 2 * (TOKEN_BUCKETS // 2) ** 2 * width

    @staticmethod
    def kept_bytes(tokens: int, width: int) -> int:
        """Bytes of the hashes of features of that size: signs in float32, places in int64."""
        entries, row = tokens * width, _row(width)
        places = -(-entries // row) + BUCKETS // row + tokens + TOKEN_BUCKETS
        return FLOAT32 * (entries + tokens) + 8 * places

    def __call__(
        self, features: Float[Tensor, "b n d"], mean: Float[Tensor, "b d"]
    ) -> tuple[Float[Tensor, "b m"], Float[Tensor, "b p"], Float[Tensor, "b n"]]:
        """The flat sketch, the kernel's sketch and the squared token norms of features - mean."""
        parts = [self._clip(clip, token) for clip, token in zip(features, mean, strict=True)]
        flat, kernel, squares = (torch.stack(part) for part in zip(*parts, strict=True))
        return flat, kernel, squares

    def _clip(
        self, features: Float[Tensor, "n d"], mean: Float[Tensor, " d"]
    ) -> tuple[Tensor, Tensor, Tensor]:
        # The end of the last row stays zero.
        room = mean.new_zeros(len(self.rows) * self.row)
        centred = room[: self.entries].view_as(features)
        torch.sub(features, mean, out=centred)
        squares = torch.linalg.vector_norm(centred, dim=-1).square()
        kernel = self._kernel(centred)
        room[: self.entries].mul_(self.signs)
        flat = embedding_bag(self.rows, room.view(-1, self.row), self.row_starts, mode="sum")
        return flat.flatten(), kernel, squares

    def _kernel(self, centred: Float[Tensor, "n d"]) -> Float[Tensor, " p"]:
        """The token kernel K = X Xᵀ between two random halves of the tokens, each added up in 128 buckets.

        With U, V ∈ {0, ±1}^(n/2 x 128) this is Uᵀ K V. No token is paired with itself, so squared norms add
        no bias. The expected product of two sketches is the sum of K_ij L_ij over i in one half and j in the
        other. All pairs of 256 buckets would cost four times as much, for an error in CKA that is between
        half as large and the same.
        """
        signs = self.token_signs
        buckets = embedding_bag(self.tokens, centred, self.token_starts, mode="sum", per_sample_weights=signs)
        one, other = buckets.chunk(2)
        return (one @ other.mT).flatten()


def kept_pairs(tokens: int) -> float:
    """Share of all pairs of different tokens that a kernel's sketch contains: those between the halves."""
    half = tokens // 2
    return 2 * half * (tokens - half) / (tokens * (tokens - 1))


def _row(width: int) -> int:
    """Entries of a row: the first length without a common factor with the width."""
    return next(length for length in ROW_LENGTHS if width % length)


def _starts(count: int, bags: int) -> Int[Tensor, " bags"]:
    """Start of each of `bags` equal slices of `count` things."""
    return torch.arange(bags) * count // bags


def _signs(count: int, draws: torch.Generator) -> Float[Tensor, " count"]:
    return torch.randint(0, 2, (count,), generator=draws).float().mul_(2).sub_(1)
