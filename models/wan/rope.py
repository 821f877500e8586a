"""RoPE tables of Wan for frames with any numbers; the stock network's always begin with frame 0."""

from typing import Any

import torch

from framelens.diffusion.transfer import send
from framelens.models.parts.blocks import Rope


def turns(rope: Any, axes: tuple[int, int, int], grid: list[list[int]], device: torch.device) -> Rope:
    """Cosine and sine [n head] of tokens at the given frames, rows and columns, from the stock tables.

    The sine is negative at the first channel of each pair, where the rotation subtracts.
    """
    places = torch.meshgrid(*(send(torch.tensor(line), device) for line in grid), indexing="ij")
    cos, sin = (_pick(table.to(device), axes, places) for table in (rope.freqs_cos, rope.freqs_sin))
    sin[:, 0::2] *= -1
    return cos, sin


def _pick(table: torch.Tensor, axes: tuple[int, int, int], places: tuple[torch.Tensor, ...]) -> torch.Tensor:
    parts = zip(table.split(axes, dim=1), places, strict=True)
    return torch.cat([part[place.flatten()] for part, place in parts], dim=1)
