"""From values at a (frame, point, step) to labelled arrays.

A statistic notes every value that it receives, and tabulates its cells at the end:

    labels.note(at, point)
    cells[at.frame, point, at.step] = value                               # [b ...]
    tabulate(cells, labels.frames, labels.points, labels.steps)           # [b frame layer step ...]
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
import xarray as xr

from framelens.analyses.points import depth_order, layer_of

PROBING = "Bai et al. 2026, Causality in Video Diffusers is Separable from Denoising, §4.1"
SPARSITY = "Bai et al. 2026, Causality in Video Diffusers is Separable from Denoising, §4.2"


@runtime_checkable
class Moment(Protocol):
    """When a value was computed: the sampler's forward pass."""

    frame: int
    step: int
    sigma: float


class Labels:
    """The frames, points and steps seen so far, and the sigma of each step."""

    def __init__(self):
        self._seen: set[tuple[int, str, int, str]] = set()
        self._sigmas: dict[int, float] = {}

    def note(self, at: Moment, point: str, kind: str = "") -> None:
        """Notes one value (of one kind); ValueError for a second one at the same place and moment."""
        key = (at.frame, point, at.step, kind)
        if key in self._seen:
            raise ValueError(
                f"{point} was called twice at frame {at.frame}, step {at.step}; use one Statistic per rollout"
            )
        if self._sigmas.setdefault(at.step, at.sigma) != at.sigma:
            raise ValueError(
                f"step {at.step} has sigma {at.sigma} at frame {at.frame}, expected {self._sigmas[at.step]} "
                "as before; use one Statistic per sigma grid"
            )
        self._seen.add(key)

    @property
    def frames(self) -> list[int]:
        return sorted({frame for frame, *_ in self._seen})

    @property
    def points(self) -> list[str]:
        """Hook names by depth; of two stacks the encoder's first."""
        return sorted({point for _, point, *_ in self._seen}, key=depth_order)

    @property
    def steps(self) -> list[int]:
        return sorted(self._sigmas)

    def coords(self, step: str = "step", steps: Sequence[int] | None = None) -> dict[str, object]:
        """Coordinates frame, layer (with point) and step (with sigma) for a Dataset."""
        if not self._seen:
            raise ValueError(
                "the statistic saw no value; run at least one denoising pass with its points watched"
            )
        steps = self.steps if steps is None else list(steps)
        return {
            "frame": self.frames,
            "layer": [layer_of(point) for point in self.points],
            "point": ("layer", self.points),
            step: steps,
            "sigma": (
                step,
                [self._sigmas[s] for s in steps],
                {"units": "1", "long_name": "noise level, 1 = noise"},
            ),
        }


def tabulate(cells: Mapping[tuple, torch.Tensor], *axes: Sequence[Hashable]) -> np.ndarray:
    """One float32 array [b, *axes, ...] of all cells [b, ...], whose keys are labels along the axes.

    NaN where a cell is missing. Axes after the labelled ones are padded with NaN to the longest cell.
    """
    arrays = _to_numpy(cells)
    batches = {array.shape[0] for array in arrays.values()}
    if len(batches) != 1:
        raise ValueError(
            f"got batches of {sorted(batches)} clips; expected one size, use one Statistic per batch"
        )
    longest = np.max([array.shape for array in arrays.values()], axis=0)
    table = np.full((longest[0], *map(len, axes), *longest[1:]), np.nan, np.float32)
    places = [{label: place for place, label in enumerate(axis)} for axis in axes]
    for key, array in arrays.items():
        where = (place[label] for place, label in zip(places, key, strict=True))
        table[(slice(None), *where, *map(slice, array.shape[1:]))] = array
    return table


def _to_numpy(cells: Mapping[tuple, torch.Tensor]) -> dict[tuple, np.ndarray]:
    """The cells in the CPU's memory as float32, with one transfer per shape."""
    shapes: dict[torch.Size, list[tuple]] = {}
    for key, cell in cells.items():
        shapes.setdefault(cell.shape, []).append(key)
    arrays = {}
    for keys in shapes.values():
        arrays.update(zip(keys, torch.stack([cells[key] for key in keys]).float().cpu().numpy(), strict=True))
    return arrays


def variable(dims: str, values: np.ndarray, units: str, long_name: str, source: str) -> xr.Variable:
    """A described variable; dims are written in one string, as in "clip frame layer"."""
    return xr.Variable(dims.split(), values, {"units": units, "long_name": long_name, "source": source})
