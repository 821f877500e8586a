"""The share of a step's clips that one process takes, in one pass or several (gradient accumulation).

    for rows in shares(recipe, ranks):                      # slices of the batch
        with NoiseOfRows(rows, recipe.batch):               # the noise that the network adds by itself
            loss = ...

The clips, noise levels and noise are those of the whole batch, so that the number of processes and of passes
changes the result by rounding alone.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from torch.overrides import TorchFunctionMode

from framelens.models.loading.ranks import Ranks
from framelens.training.recipes import Recipe


def shares(recipe: Recipe, ranks: Ranks) -> list[slice]:
    """The clips of each pass of this process; ValueError where the batch cannot be divided equally."""
    passes = ranks.size * recipe.accumulate
    if recipe.batch % passes:
        raise ValueError(
            f"a batch of {recipe.batch} clips cannot be divided equally among {ranks.size} processes with "
            f"accumulate={recipe.accumulate}: choose a --batch that {passes} divides"
        )
    clips = recipe.batch // passes
    first = ranks.rank * recipe.accumulate
    return [slice(clips * each, clips * (each + 1)) for each in range(first, first + recipe.accumulate)]


class NoiseOfRows(TorchFunctionMode):
    """Within it, `randn_like` and `rand_like` of a share give these rows of the whole batch's noise."""

    def __init__(self, rows: slice, batch: int):
        super().__init__()
        self.rows, self.batch = rows, batch

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """What the function returns; see the class."""
        if func not in (torch.randn_like, torch.rand_like):
            return func(*args, **(kwargs or {}))
        like, *others = args
        order = sorted(
            range(like.ndim), key=lambda axis: -like.stride(axis)
        )  # numbers are drawn in this order
        shape = (self.batch, *like.shape[1:])
        whole = torch.empty_permuted(shape, order, dtype=like.dtype, device=like.device)
        return func(whole, *others, **(kwargs or {}))[self.rows]


def average_gradients(module: nn.Module, ranks: Ranks) -> None:
    """Replaces each gradient by its mean over the processes; FSDP2 did so with those that it divides."""
    found = [weight.grad for weight in module.parameters() if weight.grad is not None]
    ranks.average([grad for grad in found if not isinstance(grad, DTensor)])
