"""The known state of a world's frames, as targets that a linear probe reads.

    for name, target in worlds.load("tiles").targets(batch, patch=4).items(): ...

A world with known state has `targets(clips, patch)`, a mapping of names to Targets.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Shaped

GROUPS = ("in view", "out of view", "motion", "control")


@dataclass(frozen=True)
class Target:
    """One quantity that a probe reads from a frame, or from each of its tokens. NaN means undefined.

    values: [b f n k]. n is 1 for the whole frame, else the number of its tokens in row-major order. Without
    classes, these are k numbers in `units`. With classes, k is 1 and the value is the index of the class.
    """

    values: Float[np.ndarray, "b f n k"]
    group: str
    """The group of questions that it belongs to, one of GROUPS."""
    about: str
    """A caption: the meaning, and where it is defined."""
    units: str = "1"
    classes: tuple[str, ...] = ()

    def __post_init__(self):
        if self.group not in GROUPS:
            raise ValueError(f"a target's group is one of {GROUPS}, got {self.group!r}")
        if self.classes and self.values.shape[-1] != 1:
            raise ValueError(f"classes have one value at a place, got {self.values.shape[-1]}")


def grid(
    rows: Shaped[np.ndarray, " height"], columns: Shaped[np.ndarray, " width"] | None = None
) -> Shaped[np.ndarray, "n 2"]:
    """Row and column of each point of a grid, row by row, from the coordinates along its sides."""
    return np.stack(np.meshgrid(rows, rows if columns is None else columns, indexing="ij"), -1).reshape(-1, 2)


def token_centres(side: int, patch: int) -> Float[np.ndarray, " n"]:
    """The centres, in pixels, of the tokens along one side of a frame. ValueError if they do not fill it."""
    if side % patch:
        raise ValueError(f"patches of {patch} pixels do not fill a side of {side}; choose a divisor of it")
    return np.arange(side // patch) * float(patch) + (patch - 1) / 2


def keep_where(values: Shaped[np.ndarray, "b f n"], where: Bool[np.ndarray, "b f n"]) -> np.ndarray:
    """The values [b f n 1] of one quantity at each token, NaN elsewhere than `where`."""
    return np.where(where, values, np.nan)[..., None]


def of_whole_frame(values: Shaped[np.ndarray, "b f k"]) -> Float[np.ndarray, "b f 1 k"]:
    """The k values of each frame, as those of its only place."""
    return values[:, :, None].astype(float)
