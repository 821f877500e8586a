"""Copies from the CPU to a GPU for which the CPU does not wait.

index = send(torch.tensor([3]), model.device)
"""

import torch
from torch import Tensor


def send(tensor: Tensor, device: torch.device | str) -> Tensor:
    """The tensor on that device.

    A copy from the CPU's memory to a GPU is ordered before what is computed there later, and the CPU does
    not wait until the GPU has finished what it was given before.
    """
    if tensor.device.type == "cpu" and torch.device(device).type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def send_levels(sigmas: Tensor, device: torch.device) -> tuple[Tensor, list[float]]:
    """Noise levels on that device, and as numbers: read here once, since reading them waits for a GPU."""
    return sigmas.to(device), sigmas.tolist()
