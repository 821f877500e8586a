"""Layers cut off from the past in training: the counterpart of `hooks.cut`, which cuts denoising passes.

    with frame_diagonal(model, {9, 10, 11}):
        flow_matching_loss(model, clean, noise, sigma, cond).mean().backward()

In these layers a noisy frame sees itself alone; clean frames see what they saw, so that the memory of a
cut model is that of the whole one.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from models._history import CleanThenNoisy, FrameCausal, Together


@contextmanager
def frame_diagonal(model: Any, layers: Iterable[int]) -> Iterator[None]:
    """Cuts these layers of a dense model in `teacher_forced`, until the block ends; ValueError for others."""
    layers, depth = sorted(set(layers)), len(model.blocks)
    if layers and not 0 <= layers[0] <= layers[-1] < depth:
        raise ValueError(f"layers {layers} are not all among the {depth} layers of the model")
    with ExitStack() as stack:
        for layer in layers:
            attention = model.get_submodule(f"blocks.{layer}.attn")
            stack.callback(attention.register_forward_pre_hook(_cut_off).remove)
        yield


def _cut_off(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(_Diagonal(part) if isinstance(part, CleanThenNoisy) else part for part in inputs)


@dataclass(frozen=True)
class _Diagonal:
    """Clean frames as in the whole model, each noisy frame on its own."""

    whole: CleanThenNoisy

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of all tokens [b h n d], n = (2 frames tokens_per_frame)."""
        frames, half = self.whole.frames, q.shape[2] // 2
        clean = FrameCausal(frames, self.whole.tokens_per_frame, self.whole.reach)
        seen = clean.attend(layer, *(part[:, :, :half] for part in (q, k, v)))
        alone = (rearrange(part[:, :, half:], "b h (f n) d -> (b f) h n d", f=frames) for part in (q, k, v))
        noisy = rearrange(Together().attend(layer, *alone), "(b f) h n d -> b h (f n) d", f=frames)
        return torch.cat([seen, noisy], dim=2)
