"""Layers cut off from the past without an instrument: in training, and in sampling.

    with frame_diagonal(model, {9, 10, 11}):
        flow_matching_loss(model, clean, noise, sigma, cond).mean().backward()
    rollout(CutModel(model, {9, 10, 11}), noise, sigmas, cond)

In these layers a noisy frame sees only itself. Clean frames see what they saw before, so a cut model
remembers the same as the whole one. `hooks.cut` does the same to the passes that an instrument watches.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from framelens.diffusion.around import Around
from framelens.diffusion.contract import CausalDiffuser
from framelens.models.dense import Dense
from framelens.models.parts.cache import KVCache
from framelens.models.parts.history import AllTokens, CleanThenNoisy, FrameCausal


@contextmanager
def cut_teacher_forced(model: CausalDiffuser, layers: Iterable[int]) -> Iterator[None]:
    """Cuts these layers of a dense model in `teacher_forced` within the block; ValueError for others."""
    dense = _require_dense(model)
    with _replace_histories(dense, _check_layers(dense, layers), CleanThenNoisy, _Diagonal):
        yield


def layers_from(model: CausalDiffuser, first: int) -> range:
    """The layers of a dense model from `first` to the last; ValueError if `first` is not a layer."""
    depth = len(_require_dense(model).blocks)
    if not 0 <= first < depth:
        raise ValueError(f"the first cut layer must be 0 to {depth - 1}, got {first}")
    return range(first, depth)


class CutModel(Around):
    """A dense model whose `denoise` is cut in these layers; satisfies the contract of a CausalDiffuser.

    Its memory of finished frames equals the whole model's. ValueError for layers that do not exist.
    """

    def __init__(self, model: CausalDiffuser, layers: Iterable[int]):
        self.model: Dense = _require_dense(model)
        self.layers = _check_layers(self.model, layers)

    def denoise(self, x: Tensor, sigma: Tensor, context: Any) -> Tensor:
        """The velocity if the current frame sees only itself in the cut layers."""
        with _replace_histories(self.model, self.layers, KVCache, lambda _: AllTokens()):
            return self.model.denoise(x, sigma, context)


def _require_dense(model: CausalDiffuser) -> Dense:
    if not isinstance(model, Dense):
        raise ValueError(f"only a framelens dense network can be cut, got {type(model).__name__}")
    return model


def _check_layers(model: Dense, layers: Iterable[int]) -> list[int]:
    chosen, depth = sorted(set(layers)), len(model.blocks)
    if chosen and not 0 <= chosen[0] <= chosen[-1] < depth:
        raise ValueError(f"layers must be 0 to {depth - 1}, got {chosen}")
    return chosen


@contextmanager
def _replace_histories(
    model: Dense, layers: Iterable[int], kind: type, instead: Callable[[Any], Any]
) -> Iterator[None]:
    """Within the block, attention in these layers gets `instead(history)` for a history of that kind."""

    def replace_history(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(instead(part) if isinstance(part, kind) else part for part in inputs)

    with ExitStack() as stack:
        for layer in layers:
            attention = model.get_submodule(f"blocks.{layer}.attn")
            stack.callback(attention.register_forward_pre_hook(replace_history).remove)
        yield


@dataclass(frozen=True)
class _Diagonal:
    """Clean frames see what they see in the whole model; each noisy frame sees only itself."""

    whole: CleanThenNoisy

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of all tokens [b h n d], n = (2 frames tokens_per_frame)."""
        frames, half = self.whole.frames, q.shape[2] // 2
        clean = FrameCausal(frames, self.whole.tokens_per_frame, self.whole.reach)
        seen = clean.attend(layer, *(part[:, :, :half] for part in (q, k, v)))
        alone = (rearrange(part[:, :, half:], "b h (f n) d -> (b f) h n d", f=frames) for part in (q, k, v))
        noisy = rearrange(AllTokens().attend(layer, *alone), "(b f) h n d -> b h (f n) d", f=frames)
        return torch.cat([seen, noisy], dim=2)
