"""A network whose denoising pass is all of its layers, and which offers them to be run by ranges."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from framelens.diffusion.layers import LayerInputs, LayerStack
from framelens.models.parts.blocks import HookedRootModule


class Layered:
    """The part that such networks share; each adds `enter`, `through`, `velocity` (diffusion/layers.py)."""

    enter: Callable[..., LayerInputs]
    through: Callable[..., Tensor]
    velocity: Callable[..., Tensor]

    @property
    def stack(self) -> LayerStack:
        """The layers: this network itself."""
        return self

    def denoise(self, x: Tensor, sigma: Tensor, context: Any) -> Tensor:
        """The velocity of the current chunk x [b f c h w] at noise level sigma [b], given the context."""
        entered = self.enter(x, sigma, context)
        return self.velocity(self.through(*entered), entered.modulations)

    forward = denoise


class RemembersByLayers:
    """A network that can encode finished frames by some of its layers; each adds `encode_by`."""

    def encode_by(self, x: Tensor, context: Any, layers: range | None) -> Any:
        """As `encode`, but these first layers alone run and remember; None for all."""
        raise NotImplementedError

    def encode(self, x: Tensor, context: Any) -> Any:
        """The context with these finished frames taken into the memory of all layers."""
        return self.encode_by(x, context, None)


class RecomputedBlocks:
    """A module whose blocks may be computed again in the backward pass instead of storing activations."""

    recompute = False
    """Whether they are; matters where gradients are computed."""

    def run_block(self, block: nn.Module, *inputs: Any) -> Tensor:
        """The block's output for these inputs, tensors and others."""
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(block, *inputs, use_reentrant=False)  # pyright: ignore[reportReturnType]
        return block(*inputs)


class UniformLayers(Layered):
    """A layered network whose `blocks` are of one kind, so that any of them may be left out."""

    blocks: nn.ModuleList

    def with_layers(self, layers: Sequence[int], share: bool = False) -> Any:
        """A copy with these layers alone, in this order; its weights are copies, or with `share` the same."""
        assert isinstance(self, nn.Module)
        kept = self if share else nn.ModuleList(b for i, b in enumerate(self.blocks) if i not in layers)
        memo: dict[int, Any] = {id(weight): weight for weight in [*kept.parameters(), *kept.buffers()]}
        copied: Any = copy.deepcopy(self, memo)
        copied.blocks = nn.ModuleList(copied.blocks[layer] for layer in layers)
        if isinstance(copied, HookedRootModule):
            copied.setup()
        return copied
