"""How alike a layer's features are at every pair of denoising steps of one frame.

    statistic = Statistic()
    statistic.add(at, "blocks.3.hook_resid_post", value)      # [b n d], every denoising pass
    statistic.result().cosine                                 # (clip, frame, layer, step, step_b)

Features are kept as they are up to `exact_tokens` tokens, and above that as sketches in half precision:
all entries in about 16384 buckets for the cosines and distances, tokens in 256 buckets for CKA. In both
cases they are reduced to matrices and freed when the next frame begins. Cosines of single tokens are of at
most 64 tokens. The formulas are in analyses/sums/gram.py and token_cosines.py.
"""

from collections.abc import Iterator
from typing import Any

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from framelens.analyses.cost import FLOAT32, StatisticCost, WatchedShape
from framelens.analyses.sums.gram import gram_products, similarities
from framelens.analyses.sums.layout import PROBING, Labels, Moment, tabulate, variable
from framelens.analyses.sums.sketch import CountSketch, kept_pairs
from framelens.analyses.sums.token_cosines import (
    TokenSketch,
    choose_tokens,
    largest_shares,
    token_cosine_products,
    token_cosines,
    with_median,
)
from framelens.analyses.sums.token_sample import Sampled

reads: tuple[str, ...] = ("*hook_embed", "*blocks.*.hook_resid_post")

# Layers of one shape are reduced together, up to this many float64 numbers (8 MiB).
_TOGETHER = 2**20

_MEANINGS = {
    "cosine": "cosine of the features at two steps, all tokens and channels as one vector",
    "centred_cosine": "cosine after removing the reference step's mean token from both steps",
    "relative_l2": "distance of the features at two steps over the norm at the reference step",
    "cka": "linear centred kernel alignment over tokens, unbiased (Song et al. 2012; Kornblith et al. 2019)",
    "token_cosine": "cosine of a token at two steps after removing the reference step's median token; mean "
    "over tokens",
    "token_cosine_median": "the same, median over tokens",
    "common_mode": "norm of the mean token over the root mean square token norm",
}
_SHARES = {
    "token_share": "largest share of the squared norm of the features that one token has",
    "channel_share": "largest share of the squared norm of the features that one channel has",
}


class Statistic:
    """Similarity of one frame's features between denoising steps; the reference step is `step`."""

    def __init__(self, exact_tokens: int = 256, seed: int = 0):
        self.exact_tokens, self.seed = exact_tokens, seed
        self._labels = Labels()
        self._frame = -1
        self._kept: dict[str, dict[int, tuple[Tensor, ...]]] = {}
        self._hashes: dict[tuple, tuple[CountSketch, TokenSketch]] = {}
        self._done: dict[str, dict[tuple[int, str], Tensor]] = {name: {} for name in _MEANINGS}
        self._shares: dict[str, dict[tuple[int, str, int], Tensor]] = {name: {} for name in _SHARES}

    def add(self, at: Moment, name: str, value: Float[Tensor, "b n d"]) -> None:
        """Keeps the features of one step, exactly or as sketches."""
        if at.frame != self._frame:
            self._finish()
            self._frame = at.frame
        self._labels.note(at, name)
        kept = (value.clone(),) if value.shape[1] <= self.exact_tokens else self._sketch(value)
        self._kept.setdefault(name, {})[at.step] = kept
        for share, cell in largest_shares(value).items():
            self._shares[share][at.frame, name, at.step] = cell

    def result(self) -> xr.Dataset:
        """All measures as (clip, frame, layer, step, step_b); common_mode and shares have no step_b."""
        self._finish()
        coords = self._labels.coords() | {"step_b": self._labels.steps}
        variables = {}
        for name, cells in self._done.items():
            dims = "clip frame layer step" + (" step_b" if name != "common_mode" else "")
            table = tabulate(cells, self._labels.frames, self._labels.points)
            variables[name] = variable(dims, table, "1", _MEANINGS[name], PROBING)
        axes = self._labels.frames, self._labels.points, self._labels.steps
        for name, cells in self._shares.items():
            table = tabulate(cells, *axes)
            variables[name] = variable("clip frame layer step", table, "1", _SHARES[name], PROBING)
        return xr.Dataset(variables, coords)

    def cost(self, shape: WatchedShape) -> StatisticCost:
        """Kept: values of the current frame or their sketches, and the matrices of earlier frames."""
        n, d, steps, points = shape.tokens, shape.width, shape.steps, shape.layers + 1
        if n <= self.exact_tokens:
            products, others, once, compared = 2 * n**2 * d, 0, 0, (len(choose_tokens(n)), d)
            held, lengths = n * d * shape.value_bytes, (n * d, n * (n - 1) // 2)
        else:
            sizes, compared = CountSketch.sizes(d), TokenSketch.size(n, d)
            # For each entry: a mean, a difference, norms, signs and two sums.
            products, others = CountSketch.products(d) + TokenSketch.products(n, d), 7 * n * d
            once = CountSketch.kept_bytes(n, d) + TokenSketch.kept_bytes(n, d)
            rows = (compared[0] + 1) * compared[1]
            held, lengths = 2 * sum(sizes) + FLOAT32 * (len(sizes) + n + d + rows), sizes
        matrices = FLOAT32 * ((len(_MEANINGS) - 1) * steps**2 + steps)
        shares = FLOAT32 * len(_SHARES) * steps * shape.frames
        kept = points * (steps * held + (shape.frames - 1) * matrices + shares) + once
        products = steps * products + gram_products(steps, n, d, *lengths)
        products += token_cosine_products(steps, *compared)
        others += 4 * n * d  # the norms of tokens and of channels
        times = points * shape.frames
        return StatisticCost(times * products, times * steps * others, kept)

    def _sketch(self, value: Float[Tensor, "b n d"]) -> tuple[Tensor, ...]:
        _, tokens, width = value.shape
        key = (tokens, width, value.device)
        if key not in self._hashes:
            size = (tokens, width, value.device, self.seed)
            self._hashes[key] = CountSketch(*size), TokenSketch(*size)
        sketch, keep_tokens = self._hashes[key]
        mean = value.mean(1, dtype=torch.float32)
        flat, kernel, squares = sketch(value, mean)
        return (*_to_half(flat), *_to_half(kernel), squares, mean, keep_tokens(value))

    def _finish(self) -> None:
        """Reduces the frame that just ended to step x step matrices."""
        for points in self._groups():
            kept = [[self._kept[point].pop(step) for step in self._labels.steps] for point in points]
            parts = [torch.stack([torch.stack(layer, 1) for layer in part]) for part in _transpose(kept)]
            is_exact = len(parts) == 1
            rows = _compared_tokens(parts[0]) if is_exact else parts.pop()
            parts = _exact_parts(parts[0]) if is_exact else _sketch_parts(*parts)
            share = 1.0 if is_exact else kept_pairs(parts[2].shape[-1])
            measures = similarities(*parts, kept_pairs=share) | token_cosines(rows)
            for name, values in measures.items():
                for point, cell in zip(points, values.float(), strict=True):
                    self._done[name][self._frame, point] = cell
        self._kept.clear()

    def _groups(self) -> Iterator[list[str]]:
        """Groups of points with features of one shape, small enough to be reduced at once."""
        groups: dict[tuple, list[str]] = {}
        steps = self._labels.steps
        for point, kept in self._kept.items():
            if sorted(kept) != steps:
                raise ValueError(
                    f"{point} was seen at steps {sorted(kept)} of frame {self._frame}; expected {steps}, "
                    "the same steps at every point and frame"
                )
            groups.setdefault(tuple(part.shape for part in kept[steps[0]]), []).append(point)
        for shapes, points in groups.items():
            together = max(1, _TOGETHER // (len(steps) * sum(shape.numel() for shape in shapes)))
            for start in range(0, len(points), together):
                yield points[start : start + together]


def for_run(settings: Any) -> Any:
    """The statistic on the number of tokens per frame that the settings give."""
    if settings.tokens is None:
        return Statistic()
    return Sampled(Statistic, settings.tokens, settings.seed)


def _exact_parts(features: Float[Tensor, "l b s n d"]) -> tuple[Tensor, ...]:
    mean, centred = _centre(features)
    tokens = features.shape[-2]
    rows, columns = torch.triu_indices(tokens, tokens, 1, device=features.device)
    kernel = centred @ centred.mT
    return centred.flatten(-2), kernel[..., rows, columns], _squares(centred), mean


def _compared_tokens(features: Float[Tensor, "l b s n d"]) -> Float[Tensor, "l b s m d"]:
    chosen = choose_tokens(features.shape[-2]).to(features.device)
    return with_median(features.index_select(-2, chosen).float())


def _sketch_parts(
    flat: Tensor, flat_scale: Tensor, kernel: Tensor, kernel_scale: Tensor, squares: Tensor, mean: Tensor
) -> tuple[Tensor, ...]:
    return flat * flat_scale, kernel * kernel_scale, squares, mean


def _to_half(sketch: Float[Tensor, "b m"]) -> tuple[Float[Tensor, "b m"], Float[Tensor, "b 1"]]:
    """A sketch in half precision, and the float32 number to multiply it by, so that no entry overflows.

    Rounding changes cosines by less than 1e-6. It changes distances only below 0.001 of the norm, where the
    sketch itself has a larger error.
    """
    scale = sketch.abs().amax(-1, keepdim=True).clamp(min=torch.finfo(sketch.dtype).tiny)
    return (sketch / scale).half(), scale


def _centre(features: Float[Tensor, "*l n d"]) -> tuple[Float[Tensor, "*l d"], Float[Tensor, "*l n d"]]:
    features = features.float()
    mean = features.mean(-2)
    return mean, features - mean[..., None, :]


def _squares(features: Float[Tensor, "*l n d"]) -> Float[Tensor, "*l n"]:
    return torch.linalg.vector_norm(features, dim=-1).square()


def _transpose(kept: list[list[tuple[Tensor, ...]]]) -> list[list[list[Tensor]]]:
    """Parts first: part, point, step."""
    parts = range(len(kept[0][0]))
    return [[[step[part] for step in point] for point in kept] for part in parts]
