"""Conversion between Oasis's noise (variance-preserving, levels 0 to 999) and ours (sigma, 1 to 0).

Ours is x = (1 - s) x0 + s eps with velocity eps - x0. Scaled by c = 1 / sqrt((1 - s)^2 + s^2) it is Oasis's
a x0 + b eps with a = (1 - s) c and b = s c, whose network gives v = a eps - b x0. So x0 = a c x - b v,
eps = b c x + a v, and the velocity is (b - a) c x + (a + b) v. An Euler step of ours is its DDIM step.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

LEVELS = 1000


def signal_shares(levels: int = LEVELS) -> Float[Tensor, "{levels}"]:
    """Share of signal in the variance, a^2, at each level: the sigmoid schedule (Jabri et al. 2022).

    From -3 to 3, normalised to 1 before level 0; each level keeps at least a thousandth of the one before.
    Values are rounded to float32 in the same places as in the released code.
    """
    place = torch.linspace(-3, 3, levels + 1, dtype=torch.float64)
    left = place[-1].float().sigmoid().double() - place.sigmoid()
    lost = (1 - left[1:] / left[:-1]).clamp(0, 0.999).float()
    return (1 - lost).cumprod(0).double()


def log_odds_of(shares: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """log(s / (1 - s)) of our noise level with that share of signal."""
    return ((1 - shares) / shares).log() / 2


def sigma_of(level: int) -> float:
    """Our sigma of one of Oasis's levels, 0 to 999."""
    return float(torch.sigmoid(log_odds_of(signal_shares())[level]))


def level_of(sigma: Float[Tensor, " b"], log_odds: Float[Tensor, " n"]) -> Float[Tensor, " b"]:
    """Oasis's levels of our sigmas, interpolated between two levels by log odds, from the first to the last.

    `log_odds` are those of all levels, ascending. A float32 sigma gives a level with an error of about 1e-4,
    so a level within 1e-3 of a whole number is rounded to it.
    """
    wanted = torch.logit(sigma.to(log_odds.dtype)).clamp(log_odds[0], log_odds[-1])
    above = torch.searchsorted(log_odds, wanted).clamp(1, len(log_odds) - 1)
    low, high = log_odds[above - 1], log_odds[above]
    level = above - 1 + (wanted - low) / (high - low)
    return torch.where((level - level.round()).abs() < 1e-3, level.round(), level)


class Conversion(NamedTuple):
    """The frames in Oasis's noise, and the two factors that give our velocity."""

    scaled: Float[Tensor, "b f c h w"]
    of_frames: Tensor
    of_network: Tensor

    @classmethod
    def of(cls, x: Float[Tensor, "b f c h w"], sigma: Float[Tensor, " b"]) -> "Conversion":
        """That of frames x at our noise level sigma."""
        s = sigma.double()[:, None, None, None, None].to(x.device)
        c = ((1 - s) ** 2 + s**2).rsqrt()
        a, b = (1 - s) * c, s * c
        return cls(x * c.to(x.dtype), (b - a).to(x.dtype), (a + b).to(x.dtype))

    def velocity(self, v: Float[Tensor, "b f c h w"]) -> Float[Tensor, "b f c h w"]:
        """Our velocity from what the network gives of the scaled frames."""
        return self.of_frames * self.scaled + self.of_network * v.to(self.scaled.dtype)
