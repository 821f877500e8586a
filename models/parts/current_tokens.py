"""Hook points for passes that compute the keys of earlier frames again, before those of the current frames.

Hook points see only the current frames' tokens, as in every other pass.
"""

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn

Turns = Complex[Tensor, "n pairs"]
"""The rotation of every token, one complex number of length 1 for each pair of channels."""


def hook_current(point: nn.Module, x: Tensor, own: int) -> Tensor:
    """x [b n ...] after the hook point, which sees only the last `own` tokens [b own ...]."""
    if own == x.shape[1]:
        return point(x)
    return torch.cat([x[:, :-own], point(x[:, -own:])], dim=1)


def rotate_pairs(x: Float[Tensor, "b n h d"], turns: Turns) -> Float[Tensor, "b n h d"]:
    """x with each pair of neighbouring channels rotated; computed in float32."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * turns[None, :, None]).flatten(-2).to(x.dtype)
