"""How far back each head looks: attention mass by frame lag, at every layer and denoising step.

    statistic = Statistic(queries=64)
    statistic.add(at, "blocks.3.attn", pattern)      # a hooks.attention.Pattern
    statistic.result().mass                          # (clip, frame, layer, head, step, lag)

The softmax runs over all keys before the sum by frame. Beside every mass is the share of keys at that
lag, which is the mass under uniform attention.
"""

from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from framelens.analyses.cost import FLOAT32, StatisticCost, WatchedShape
from framelens.analyses.sums.layout import SPARSITY, Labels, Moment, tabulate, variable

reads: str = "attention"

_COUNT_BYTES = 8
"""Bytes of a number of keys."""


@runtime_checkable
class PatternLike(Protocol):
    """What this statistic needs of an attention pattern."""

    key_age: Int[Tensor, " k"] | None
    fraction: float

    def subsample(self, queries: int | None, seed: int) -> "PatternLike": ...

    def statistics(self) -> tuple[Float[Tensor, "b h q lag"], Float[Tensor, "b h q"]]: ...


class Statistic:
    """Attention by frame lag, averaged over the queries of a pass (or a fixed random `queries` of them)."""

    def __init__(self, queries: int | None = 64, seed: int = 0):
        if queries is not None and queries < 2:
            raise ValueError(
                f"got {queries} queries; expected at least 2 for a standard error, or None for all"
            )
        self.queries, self.seed = queries, seed
        self._labels = Labels()
        self._cells: dict[str, dict[tuple[int, str, int], Tensor]] = {
            "mass": {},
            "entropy": {},
            "mass_stderr": {},
        }
        self._keys: dict[tuple[int, str], Tensor] = {}
        self._checked: set[tuple[int, str]] = set()

    def add(self, at: Moment, name: str, value: PatternLike) -> None:
        """Keeps the mean over queries of the mass by lag and of the entropy."""
        self._labels.note(at, name)
        if (at.frame, name) not in self._checked:
            self._count_keys(at.frame, name, value.key_age)
        pattern = value.subsample(self.queries, self.seed)
        mass, entropy = pattern.statistics()
        key = (at.frame, name, at.step)
        self._cells["mass"][key] = mass.mean(2)
        self._cells["entropy"][key] = entropy.mean(2)
        self._cells["mass_stderr"][key] = _standard_error(mass[..., 1:].sum(-1), pattern.fraction)

    def result(self) -> xr.Dataset:
        """mass, uniform, entropy, uniform_entropy, mean_lag, cross_mass and mass_stderr.

        A lag at which a frame has no keys is NaN in mass and in uniform. Some layers may see only the keys of
        their own frame: `uniform` is that of the layers that see others. It has the axis `layer` where these
        differ, as an encoder and a decoder do, and `uniform_entropy` where the numbers of keys differ.
        """
        coords = self._labels.coords()
        axes = self._labels.frames, self._labels.points, self._labels.steps
        table = {name: np.moveaxis(tabulate(cells, *axes), 4, 3) for name, cells in self._cells.items()}
        uniform, entropy = self._uniform(), np.log(self._number_of_keys())
        table["mass"] = np.where(uniform[:, :, None, None] > 0, table["mass"], np.nan)
        lag = np.arange(uniform.shape[-1], dtype=np.float32)
        variables = {
            name: variable(*about[:1], table[name], *about[1:], SPARSITY) for name, about in _MEASURED.items()
        }
        variables |= _sum_over_lags(table["mass"], lag)
        shared = _share_of_all(uniform)
        dims, uniform = ("frame layer lag", uniform) if shared is None else ("frame lag", shared)
        variables["uniform"] = variable(dims, uniform, "1", "share of keys: the mass if uniform", SPARSITY)
        long_name = "entropy of uniform attention, log(keys)"
        most = np.nanmax(entropy, axis=1)
        is_one = (np.nanmin(entropy, axis=1) == most).all()
        dims, entropy = ("frame", most) if is_one else ("frame layer", entropy)
        variables["uniform_entropy"] = variable(dims, entropy, "nat", long_name, SPARSITY)
        return xr.Dataset(
            variables, coords | {"head": np.arange(table["mass"].shape[3]), "lag": lag.astype(int)}
        )

    def cost(self, shape: WatchedShape) -> StatisticCost:
        """Computed: scores and mean keys of the chosen queries. Kept: mass by lag, entropy and an error by
        head, and the numbers of keys."""
        queries = shape.tokens if self.queries is None else min(self.queries, shape.tokens)
        products = kept = 0
        for past in shape.pasts:
            products += shape.layers * shape.steps * 4 * queries * shape.keys(past) * shape.width
            kept += FLOAT32 * shape.layers * shape.steps * shape.heads * (past + 3)
            kept += _COUNT_BYTES * shape.layers * (past + 2)
        return StatisticCost(products, 0, kept)

    def _count_keys(self, frame: int, name: str, age: Int[Tensor, " k"] | None) -> None:
        """Keys at each lag; the last entry counts the keys that are not frames."""
        if age is None:
            raise ValueError(f"the age of the keys of {name} is not known; give its AttentionPoint a key_age")
        lags = torch.bincount(age[age >= 0]).cpu()
        counts = torch.cat([lags, torch.tensor([age.numel() - int(lags.sum())])])
        self._keys[frame, name] = counts
        self._checked.add((frame, name))

    def _uniform(self) -> Float[np.ndarray, "f layer lag"]:
        """Share of the keys by frame, layer and lag; NaN where there are none."""
        frames, points = self._labels.frames, self._labels.points
        lags = max(len(counts) for counts in self._keys.values()) - 1
        share = np.full((len(frames), len(points), lags), np.nan, np.float32)
        for (frame, name), counts in self._keys.items():
            keys = counts.numpy().astype(np.float32)
            place = frames.index(frame), points.index(name)
            share[place][: len(keys) - 1] = np.where(keys[:-1] > 0, keys[:-1] / keys.sum(), np.nan)
        return share

    def _number_of_keys(self) -> Float[np.ndarray, "f layer"]:
        """Keys of each layer; NaN for a layer without a value at a frame."""
        none = torch.tensor([torch.nan])
        frames, points = self._labels.frames, self._labels.points
        sums = [[float(self._keys.get((f, name), none).sum()) for name in points] for f in frames]
        return np.array(sums, np.float32)


def _share_of_all(uniform: Float[np.ndarray, "f layer lag"]) -> Float[np.ndarray, "f lag"] | None:
    """The share that all layers have which see more than their own frame; None where they differ."""
    shares = []
    for by_layer in uniform:
        seen = by_layer[np.isfinite(by_layer).any(-1)]
        beyond = seen[seen[:, 0] != 1]
        first, *others = next(some for some in (beyond, seen, by_layer) if len(some))
        if any(not np.array_equal(other, first, equal_nan=True) for other in others):
            return None
        shares.append(first)
    return np.stack(shares)


def for_run(settings: Any) -> Statistic:
    """The statistic with the number of queries per frame that the settings give."""
    return Statistic(queries=settings.queries)


_BY_STEP = "clip frame layer head step"
_MEASURED = {
    "mass": (f"{_BY_STEP} lag", "1", "attention mass on the keys of each frame, mean over queries"),
    "entropy": (_BY_STEP, "nat", "entropy of the attention over all keys, mean over queries"),
    "mass_stderr": (_BY_STEP, "1", "standard error of cross_mass from sampling queries, 0 if all were used"),
}


def _sum_over_lags(
    mass: Float[np.ndarray, "b f l h s lag"], lag: Float[np.ndarray, " lag"]
) -> dict[str, xr.Variable]:
    sums = {
        "mean_lag": (lag, "frame", "sum of lag times mass; keys of no frame add nothing"),
        "cross_mass": (lag > 0, "1", "attention mass on earlier frames (lag 1 and more)"),
    }
    is_seen = np.isfinite(mass).any(-1)
    variables = {}
    for name, (weight, units, long_name) in sums.items():
        values = np.where(is_seen, np.nansum(mass * weight, -1), np.nan)
        variables[name] = variable(_BY_STEP, values, units, long_name, SPARSITY)
    return variables


def _standard_error(values: Float[Tensor, "b h q"], fraction: float) -> Float[Tensor, "b h"]:
    """Of the mean over a sample without replacement: sd / sqrt(q) * sqrt(1 - fraction)."""
    if fraction >= 1:
        return torch.zeros_like(values[..., 0])
    return values.std(-1) * ((1 - fraction) / values.shape[-1]) ** 0.5
