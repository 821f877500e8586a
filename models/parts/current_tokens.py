"""Passes that carry tokens of earlier frames in front of those at hand, whose keys they make anew.

Hook points see the frames at hand alone, as in every other pass.
"""

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn

Turns = Complex[Tensor, "n pairs"]
"""The rotation of every token, one complex number of length 1 for each pair of channels."""


def hook_current(point: nn.Module, x: Tensor, own: int) -> Tensor:
    """x after the hook point, which is shown the last `own` tokens [b own ...] of x [b n ...]."""
    if own == x.shape[1]:
        return point(x)
    return torch.cat([x[:, :-own], point(x[:, -own:])], dim=1)


def rotate_pairs(x: Float[Tensor, "b n h d"], turns: Turns) -> Float[Tensor, "b n h d"]:
    """x with each pair of neighbouring channels turned; in float32."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * turns[None, :, None]).flatten(-2).to(x.dtype)
