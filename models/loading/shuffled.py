"""The null model: the same network with shuffled weights."""

import copy

import torch
from torch import nn

from framelens.diffusion.contract import CausalDiffuser, module_of


def copy_shuffled(model: CausalDiffuser, seed: int) -> CausalDiffuser:
    """A copy in which the entries of each weight tensor are permuted at random.

    Each tensor keeps its own distribution, so gates and norms stay as large as training made them. What the
    network learned about the place of each entry is lost.
    """
    copied = copy.deepcopy(model)
    shuffle(module_of(copied), seed)
    return copied


def shuffle(model: nn.Module, seed: int) -> nn.Module:
    """The model itself. The entries of each of its weight tensors are permuted at random, in place."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            order = torch.randperm(weight.numel(), generator=generator).to(weight.device)
            weight.copy_(weight.flatten()[order].view_as(weight))
    return model
