"""Noise levels: the grid a sampler walks down, the density training draws from, the noising itself.

sigmas = sigma_grid(steps=25, shift=1.0)        # 1 = s_0 > s_1 > ... > s_25 = 0
sigma = TrainingDensity().sample((b, f), generator)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


def shift_levels(sigma: Float[Tensor, "..."], shift: float) -> Float[Tensor, "..."]:
    """Noise levels moved towards 1 for shift > 1: shift s / (1 + (shift - 1) s) (Esser et al. 2024)."""
    return shift * sigma / (1 + (shift - 1) * sigma)


def sigma_grid(steps: int, shift: float = 1.0) -> Float[Tensor, "{steps}+1"]:
    """The noise levels of a sampler of that many steps, from 1 down to 0, even before the shift."""
    if steps < 1:
        raise ValueError(f"a sampler needs at least 1 step, got {steps}")
    if shift <= 0:
        raise ValueError(f"the schedule's shift must be positive, got {shift}")
    return shift_levels(torch.linspace(1, 0, steps + 1, dtype=torch.float64), shift).float()


def add_noise(
    clean: Float[Tensor, "b f c h w"], noise: Float[Tensor, "b f c h w"], sigma: Float[Tensor, "b f"]
) -> Float[Tensor, "b f c h w"]:
    """x_sigma = (1 - sigma) x_0 + sigma eps, sigma per frame."""
    level = sigma[..., None, None, None].to(clean.dtype)
    return (1 - level) * clean + level * noise


@dataclass(frozen=True)
class Sampling:
    """How a model is meant to be sampled: steps, the shift of their grid, fresh noise between steps or not.

    Few-step distilled models predict the clean frame at each step and add new noise of the next level.
    Where no shift of an even grid gives their noise levels, `levels` are those at which the steps begin:
    from 1 down, without the final 0. Raises ValueError for other levels. The first chunk that is sampled may
    take `first_steps`, which come from an even grid under the same shift (Causal-Forcing++: 4, later 2 or 1).
    """

    steps: int
    shift: float = 1.0
    renoise: bool = False
    levels: tuple[float, ...] | None = None
    first_steps: int | None = None

    def __post_init__(self):
        if self.first_steps is not None and (self.first_steps < 1 or self.levels is not None):
            raise ValueError(
                f"first_steps must be at least 1, of a sampler without levels of its own; got "
                f"{self.first_steps} and levels {self.levels}"
            )
        if self.levels is None:
            return
        falls = all(high > low for high, low in pairwise((*self.levels, 0.0)))
        if len(self.levels) != self.steps or self.levels[0] != 1 or not falls:
            raise ValueError(
                f"a sampler's levels must fall from 1 and stay above 0, one for each of {self.steps} steps, "
                f"got {self.levels}"
            )

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> "Sampling":
        """The one that `describe` gave as plain values; ValueError for values that describe none."""
        levels = values.get("levels")
        try:
            return cls(**{**values, "levels": None if levels is None else tuple(levels)})
        except TypeError as error:
            raise ValueError(f"{dict(values)} does not describe a sampler: {error}") from None

    def describe(self) -> dict[str, Any]:
        """As plain values, for a manifest."""
        levels = {} if self.levels is None else {"levels": list(self.levels)}
        first = {} if self.first_steps is None else {"first_steps": self.first_steps}
        return {"steps": self.steps, "shift": self.shift, "renoise": self.renoise} | levels | first

    def renoise_seed(self, seed: int) -> int | None:
        """That seed for the fresh noise between steps, as `rollout` takes it; None where none is added."""
        return seed if self.renoise else None

    @property
    def grid(self) -> Float[Tensor, " steps_and_1"]:
        """The noise levels of this sampler, from 1 down to 0."""
        if self.levels is None:
            return sigma_grid(self.steps, self.shift)
        return torch.tensor([*self.levels, 0.0])

    @property
    def first_grid(self) -> Float[Tensor, " first_steps_and_1"] | None:
        """The noise levels of the first chunk that is sampled, as `rollout` takes them; None for `grid`."""
        return None if self.first_steps is None else sigma_grid(self.first_steps, self.shift)


@dataclass(frozen=True)
class TrainingDensity:
    """Where training puts its noise levels: logit-normal, shifted, mixed with a uniform share.

    The uniform share trains the levels near 1, where sampling starts and a logit-normal hardly goes.
    """

    mean: float = 0.0
    spread: float = 1.0
    shift: float = 1.0
    uniform_share: float = 0.0

    def sample(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Independent noise levels of that shape, on the generator's device."""
        device = generator.device
        normal = torch.randn(shape, generator=generator, device=device)
        levels = torch.sigmoid(self.mean + self.spread * normal)
        uniform = torch.rand(shape, generator=generator, device=device)
        is_uniform = torch.rand(shape, generator=generator, device=device) < self.uniform_share
        return shift_levels(torch.where(is_uniform, uniform, levels), self.shift)

    def quantiles(self, count: int) -> Float[Tensor, "{count}"]:
        """The middle of each of `count` equally likely spans of this density, ascending."""
        if count < 1:
            raise ValueError(f"the number of quantiles must be at least 1, got {count}")
        grid = torch.linspace(0, 1, 20001, dtype=torch.float64)[1:-1]
        normal = NormalDist(self.mean, self.spread)
        cdf = torch.tensor([normal.cdf(float(x)) for x in torch.logit(grid)], dtype=torch.float64)
        mixed = self.uniform_share * grid + (1 - self.uniform_share) * cdf
        wanted = (torch.arange(count, dtype=torch.float64) + 0.5) / count
        return shift_levels(
            grid[torch.searchsorted(mixed, wanted).clamp(max=len(grid) - 1)], self.shift
        ).float()
