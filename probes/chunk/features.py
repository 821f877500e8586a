"""What one pass of a chunk computed, kept to be used in another pass."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

DRAWS = 2
"""Noise draws per clip: two show how much samples from one past differ."""


@dataclass(frozen=True)
class Features:
    """What one pass computed, a row per noise draw: the residual stream before layer 0 and after each layer,
    and the cross-frame part of attention by module (with a row per place where its attention has one).
    `sees_past`: whether any key was of an earlier frame."""

    residual: list[Float[Tensor, "b n d"]]
    cross: dict[str, Float[Tensor, "b head q dh"]]
    sees_past: bool = False

    def of_other_draw(self) -> "Features":
        """The same features with the two noise draws exchanged."""
        cross = {name: _of_other_draw(part) for name, part in self.cross.items()}
        return Features([_of_other_draw(part) for part in self.residual], cross, self.sees_past)


def _of_other_draw(rows: Tensor) -> Tensor:
    """The rows of the two draws exchanged; a draw may have several neighbouring rows."""
    return rows.unflatten(0, (DRAWS, -1)).flip(0).flatten(0, 1)
