"""Clips of a world as tensors on a device."""

import torch
from jaxtyping import Float
from torch import Tensor

from framelens.videos import Clips


def to_tensors(clips: Clips, device: str | torch.device) -> tuple[Float[Tensor, "b f c h w"], Tensor | None]:
    """The videos, and the actions [b f]; None for a world without actions."""
    actions = None if clips.actions is None else torch.from_numpy(clips.actions).to(device)
    return torch.from_numpy(clips.video).to(device), actions
