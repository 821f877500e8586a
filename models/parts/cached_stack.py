"""A stack that is the whole of a model: at every denoising step all blocks run over frame and cached past."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from framelens.hooks.attention import AttentionPoint
from framelens.models.parts.config import condition_of
from framelens.models.parts.stack import Stack


class CachedStack(Stack):
    """What such models share; each has `start`, `encode`, and `_key_age`, which knows how its keys lie.

    Their contexts have frame, cache, rope, cond, text and modulations, as DenseContext has.
    """

    @property
    def attn_dict(self) -> dict[str, AttentionPoint]:
        """Where attention happens; keys lie in frame order, the current frame last."""
        return {
            f"blocks.{layer}.attn": AttentionPoint(self.get_submodule(f"blocks.{layer}.attn"), self._key_age)
            for layer in range(len(self.blocks))
        }

    def _key_age(self, frame: int, keys: int) -> Int[Tensor, " k"]:
        """How many frames back each key of a frame's pass lies."""
        raise NotImplementedError

    def at_steps(self, sigmas: Float[Tensor, " s"], context: Any) -> Iterator[Any]:
        """The context at each step of a sampler with these noise levels, all modulated at once."""
        modulations = self.modulations_of_steps(sigmas, condition_of(context.cond, context.frame))
        return (replace(context, modulations=modulations.at(step)) for step in range(len(sigmas)))

    def denoise(
        self, x: Float[Tensor, "b 1 c h w"], sigma: Float[Tensor, " b"], context: Any
    ) -> Float[Tensor, "b 1 c h w"]:
        """The velocity of the current frame at noise level sigma, all layers run over the cached past."""
        modulations = context.modulations
        if modulations is None:
            modulations = self.modulations(1000 * sigma[:, None], condition_of(context.cond, context.frame))
        tokens = self.through(self.tokens(x), modulations, context.rope, context.cache, context.text)
        return self.velocity(tokens, modulations)

    forward = denoise
