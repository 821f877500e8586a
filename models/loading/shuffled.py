"""The null of every observation: the same network with random weights."""

import copy

import torch
from torch import nn


def shuffled(model: nn.Module, seed: int) -> nn.Module:
    """A copy in which the entries of each weight tensor are permuted at random.

    Each tensor keeps its own distribution, so gates stay as open and norms as large as training made them;
    what was learned about which entry goes where is gone.
    """
    return shuffle(copy.deepcopy(model), seed)


def shuffle(model: nn.Module, seed: int) -> nn.Module:
    """The model itself, with the entries of each of its weight tensors permuted at random."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            order = torch.randperm(weight.numel(), generator=generator).to(weight.device)
            weight.copy_(weight.flatten()[order].view_as(weight))
    return model
