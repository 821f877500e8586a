"""A part of a frame's tokens instead of all of them, and the error that this makes.

    chosen = spread_tokens(1560, 256, seed=0)                # [256], in their order
    statistic = Sampled(Statistic, tokens=256)               # a streaming statistic on 256 tokens
    statistic.result().cosine_stderr                         # beside each measure

The tokens are cut into `count` segments of equal length, and one token of each is chosen at random. The
even and the odd ones of the chosen tokens are two samples of half the size. With A, the measure of one, and
B, that of the other, |A - B| / 2 √(1 - share) estimates the standard error of the whole sample's measure. A
single such number is itself random; use the root mean square over clips, layers or steps.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from framelens.analyses.cost import StatisticCost, WatchedShape

STDERR = "_stderr"


def spread_tokens(tokens: int, count: int | None, seed: int = 0) -> Int[Tensor, " n"]:
    """One token from each of `count` equal segments; all tokens where there are no more than `count`."""
    if count is None or count >= tokens:
        return torch.arange(tokens)
    edges = torch.arange(count + 1) * tokens // count
    draws = torch.rand(count, generator=torch.Generator().manual_seed(seed))
    return edges[:-1] + (draws * (edges[1:] - edges[:-1])).long()


def half_difference(one: Any, other: Any, share: float) -> Any:
    """The standard error of a measure on a sample, from its values on the sample's two halves."""
    return abs(one - other) / 2 * (1 - share) ** 0.5


class Sampled:
    """A streaming statistic on `tokens` of the tokens, with the error of each measure from sampling them.

    Where there are no more tokens than that, it is the statistic itself.
    """

    def __init__(self, make: Callable[[], Any], tokens: int, seed: int = 0):
        self.tokens, self.seed = tokens, seed
        self._whole, self._halves = make(), (make(), make())
        self._chosen: dict[tuple[int, torch.device], Tensor] = {}
        self._share = 1.0
        self._number: int | None = None
        """Tokens of the first value."""

    def add(self, at: Any, name: str, value: Float[Tensor, "b n d"]) -> None:
        """Passes on the chosen tokens, and each half of them.

        ValueError for a value with another number of tokens than the first one, where one of them is sampled.
        """
        tokens, key = value.shape[1], (value.shape[1], value.device)
        self._number = tokens if self._number is None else self._number
        if tokens != self._number and max(tokens, self._number) > self.tokens:
            raise ValueError(
                f"{name} has {tokens} tokens and an earlier hook point {self._number}; {self.tokens} of them "
                "are a sample only where all have the same number: measure all tokens (no --tokens)"
            )
        if tokens <= self.tokens:
            self._whole.add(at, name, value)
            return
        if key not in self._chosen:
            self._chosen[key] = spread_tokens(tokens, self.tokens, self.seed).to(value.device)
        sample = value.index_select(1, self._chosen[key])
        self._share = self.tokens / tokens
        self._whole.add(at, name, sample)
        for first, half in enumerate(self._halves):
            half.add(at, name, sample[:, first::2])

    def cost(self, shape: WatchedShape) -> StatisticCost:
        """The cost on the sample and on its two halves, and the indices of the chosen tokens."""
        if shape.tokens <= self.tokens:
            return self._whole.cost(shape)
        sizes = (self.tokens, (self.tokens + 1) // 2, self.tokens // 2)
        parts = zip((self._whole, *self._halves), sizes, strict=True)
        places = StatisticCost(0, 0, 8 * self.tokens)
        return sum((part.cost(replace(shape, tokens=size)) for part, size in parts), places)

    def result(self) -> xr.Dataset:
        """The statistic's Dataset; where tokens were left out, also a standard error of each variable."""
        dataset = self._whole.result()
        if self._share == 1:
            return dataset
        one, other = (half.result() for half in self._halves)
        for name, values in dict(dataset.data_vars).items():
            error = half_difference(one[name].values, other[name].values, self._share).astype(np.float32)
            about = {"units": values.units, "long_name": f"standard error of {name} from sampling tokens"}
            dataset[f"{name}{STDERR}"] = (values.dims, error, values.attrs | about)
        return dataset
