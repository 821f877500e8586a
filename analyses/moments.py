"""Running mean and variance over the first axis of batches, in float64.

variance = Variance()
for batch in batches:                       # [b ...], any b, also 0
    variance.add(batch)
variance.merge(other)                       # the same as having added the other's batches too
variance.mean, variance.variance, variance.count
"""

import torch
from jaxtyping import Float
from torch import Tensor


class Mean:
    """The mean of everything added so far; NaN before the first value."""

    def __init__(self):
        self.count = 0
        self._mean: Tensor | None = None

    @property
    def mean(self) -> Float[Tensor, "..."]:
        return torch.tensor(torch.nan, dtype=torch.float64) if self._mean is None else self._mean

    def add(self, batch: Float[Tensor, "b ..."]) -> None:
        """Takes in the values of a batch; an empty batch changes nothing."""
        if len(batch):
            self._take(len(batch), batch.double().mean(0))

    def merge(self, other: "Mean") -> None:
        """Takes in all that another one has seen."""
        if other.count:
            self._take(other.count, other.mean)

    def _take(self, count: int, mean: Float[Tensor, "..."]) -> None:
        if self._mean is not None and self._mean.shape != mean.shape:
            raise ValueError(
                f"got values of shape {list(mean.shape)}; expected {list(self._mean.shape)} as before"
            )
        self.count += count
        self._mean = mean if self._mean is None else self._mean + (mean - self._mean) * (count / self.count)


class Variance:
    """Mean and unbiased variance of everything added so far (Chan, Golub, LeVeque 1983).

    Two parts with counts m, n, means a, b and sums of squared deviations A, B join as

        A + B + (a - b)² m n / (m + n)
    """

    def __init__(self):
        self._mean = Mean()
        self._squares = torch.zeros((), dtype=torch.float64)

    @property
    def count(self) -> int:
        return self._mean.count

    @property
    def mean(self) -> Float[Tensor, "..."]:
        return self._mean.mean

    @property
    def variance(self) -> Float[Tensor, "..."]:
        """Sum of squared deviations over count - 1; NaN below two values."""
        return torch.full_like(self.mean, torch.nan) if self.count < 2 else self._squares / (self.count - 1)

    def add(self, batch: Float[Tensor, "b ..."]) -> None:
        """Takes in the values of a batch; an empty batch changes nothing."""
        if len(batch):
            mean = batch.double().mean(0)
            self._take(len(batch), mean, (batch.double() - mean).square().sum(0))

    def merge(self, other: "Variance") -> None:
        """Takes in all that another one has seen."""
        if other.count:
            self._take(other.count, other.mean, other._squares)

    def _take(self, count: int, mean: Float[Tensor, "..."], squares: Float[Tensor, "..."]) -> None:
        before, old = self.count, self.mean
        self._mean._take(count, mean)
        between = (mean - old).square() * (before * count / self.count) if before else 0
        self._squares = self._squares.to(squares.device) + squares + between
