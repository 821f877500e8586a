"""Principal components of many feature maps together, from the leading directions of each.

    parts = [low_rank(features) for features in steps]       # each [b n d]
    scores, explained = joint_components(parts)              # [b (s n) 3], [b 3]

A map takes (n + d) RANK numbers instead of n d. The joint components are those of the kept parts. They are
exact if the leading directions of all maps together lie in the space of the RANK leading ones of each map.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from framelens.analyses.cost import FLOAT32

RANK, SPARE, ROUNDS = 16, 8, 2
"""Directions kept, directions iterated beside them, rounds; an error falls as (λ25 / λ3)^(2 ROUNDS + 1)."""


@dataclass(frozen=True)
class LowRank:
    """mean + coords basisᵀ, with orthonormal basis and orthogonal coords; squares is |features - mean|²."""

    mean: Float[Tensor, "b d"]
    basis: Float[Tensor, "b d m"]
    coords: Float[Tensor, "b n m"]
    squares: Float[Tensor, " b"]


def low_rank(features: Float[Tensor, "b n d"]) -> LowRank:
    """The leading directions of centred tokens, by subspace iteration (Halko, Martinsson, Tropp 2011)."""
    mean = features.mean(1, dtype=torch.float32)
    centred = features - mean[:, None]
    draws = torch.Generator().manual_seed(0)
    block = torch.randn(features.shape[-1], RANK + SPARE, generator=draws).to(centred)
    for _ in range(ROUNDS):
        block = torch.linalg.qr(centred.mT @ (centred @ block)).Q
    coords = centred @ block
    inside = torch.linalg.eigh(coords.mT @ coords).eigenvectors.flip(-1)[..., :RANK]
    squares = torch.linalg.vector_norm(centred, dim=(1, 2)).square()
    return LowRank(mean, block @ inside, coords @ inside, squares)


def low_rank_products(tokens: int, width: int) -> int:
    """Operations of the matrix products in `low_rank` of one map, a multiply-add counts as two."""
    block = RANK + SPARE
    iterated = (2 * ROUNDS + 1) * tokens * width * block + tokens * block**2
    return 2 * (iterated + (tokens + width) * block * RANK)


def low_rank_bytes(tokens: int, width: int) -> int:
    """Bytes that are kept of one map."""
    return FLOAT32 * ((tokens + width) * RANK + width + 1)


def joint_products(tokens: int, width: int, maps: int) -> int:
    """Operations of the matrix products in `joint_components` of that number of maps."""
    return 2 * 3 * maps * (width + RANK * width + tokens * RANK)


def joint_components(parts: Sequence[LowRank]) -> tuple[Float[Tensor, "b r 3"], Float[Tensor, "b 3"]]:
    """Scores of all tokens on three components, and each component's share of the variance of the maps."""
    tokens = parts[0].coords.shape[1]
    means = torch.stack([part.mean for part in parts], 1)
    shift = means - means.mean(1, keepdim=True)
    # The covariance of all tokens is factor factorᵀ.
    directions = [part.basis * torch.linalg.vector_norm(part.coords, dim=1, keepdim=True) for part in parts]
    factor = torch.cat([*directions, shift.mT * tokens**0.5], -1)
    leading = torch.linalg.svd(factor, full_matrices=False).U[..., :3]
    centre = (shift @ leading).split(1, dim=1)
    scores = [part.coords @ (part.basis.mT @ leading) + c for part, c in zip(parts, centre, strict=True)]
    total = sum(part.squares for part in parts) + tokens * shift.square().sum((1, 2))
    scores = torch.cat(scores, 1)
    return scores, scores.square().sum(1) / total[:, None]
