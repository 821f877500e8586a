"""Clips of a world as tensors on a device."""

import torch
from jaxtyping import Float
from torch import Tensor

from framelens.videos import Clips


def to_tensors(clips: Clips, device: str | torch.device) -> tuple[Float[Tensor, "b f c h w"], Tensor | None]:
    """The videos, and the actions [b f], prompts [b t w] or classes [b]; None for a world without."""
    kinds = (clips.text, clips.actions, clips.labels)
    given = next((kind for kind in kinds if kind is not None), None)
    return torch.from_numpy(clips.video).to(device), None if given is None else torch.from_numpy(given).to(
        device
    )
