"""A stack that is a whole model: each denoising step runs all blocks on the frame and its cached past."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from framelens.diffusion.layers import LayerInputs
from framelens.hooks.attention import AttentionPoint
from framelens.models.parts.config import condition_of
from framelens.models.parts.layered import RemembersByLayers, UniformLayers
from framelens.models.parts.stack import Stack


class CachedStack(RemembersByLayers, UniformLayers, Stack):
    """The part that such models share; each adds `start`, `encode_by` and `_key_age`.

    Their contexts have the fields frame, cache, rope, cond, text and modulations, as DenseContext has.
    """

    @property
    def attn_dict(self) -> dict[str, AttentionPoint]:
        """Self-attention of every block; keys are in frame order, the current frame last."""
        return {
            f"blocks.{layer}.attn": AttentionPoint(self.get_submodule(f"blocks.{layer}.attn"), self._key_age)
            for layer in range(len(self.blocks))
        }

    def _key_age(self, frame: int, keys: int) -> Int[Tensor, " k"]:
        """Age of each key in a frame's pass, in frames; 0 is the current frame."""
        raise NotImplementedError

    def at_steps(self, sigmas: Float[Tensor, " s"], context: Any) -> Iterator[Any]:
        """The context at each step of a sampler with these noise levels; one pass makes all modulations."""
        modulations = self.modulations_of_steps(sigmas, condition_of(context.cond, context.frame))
        return (replace(context, modulations=modulations.at(step)) for step in range(len(sigmas)))

    def enter(self, x: Float[Tensor, "b f c h w"], sigma: Float[Tensor, " b"], context: Any) -> LayerInputs:
        """The current chunk's tokens and what the layers are given beside; they attend to the cached past."""
        modulations = context.modulations
        if modulations is None:
            modulations = self.modulations(1000 * sigma[:, None], condition_of(context.cond, context.frame))
        return LayerInputs(self.tokens(x), modulations, context.rope, context.cache, context.text)
