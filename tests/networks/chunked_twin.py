"""A tiny random network of the contract with all that ours have not: two frames at a time, latents, a prompt,
a sampler of its own that adds fresh noise. For tests only."""

from dataclasses import replace
from pathlib import Path

import tiny
import torch
from jaxtyping import Float, Int
from torch import Tensor

from framelens.diffusion.schedule import Sampling
from framelens.diffusion.source import Source
from framelens.hooks.attention import AttentionPoint
from framelens.models.dense import Dense
from framelens.models.parts.contexts import DenseContext
from framelens.models.parts.stack import CLEAN_TIMESTEP

CHUNK, CHANNELS, SIDE = 2, 4, 4
PROMPT = (3, 6)
"""Tokens of a prompt and their width."""


class ChunkedTwin(Dense):
    """A dense network whose frames come in pairs that see each other, with the pairs before them cached."""

    latent = True
    takes = "text"
    sampling = Sampling(3, 5.0, True)
    density = {"shift": 5.0}
    null_condition = torch.full(PROMPT, 0.1)

    def __init__(self, layers: int = 2):
        super().__init__(
            tiny.config(
                channels=CHANNELS, height=SIDE, width=SIDE, patch=2, layers=layers, text_tokens=PROMPT[0],
                text_width=PROMPT[1],
            )
        )  # fmt: skip
        self.geometry = replace(self.geometry, frames_per_chunk=CHUNK)

    @property
    def attn_dict(self) -> dict[str, AttentionPoint]:
        """Where attention happens; the pairs before in their order, the current pair last."""
        return {
            f"blocks.{layer}.attn": AttentionPoint(self.get_submodule(f"blocks.{layer}.attn"), _key_age)
            for layer in range(len(self.blocks))
        }

    def start(self, batch: int, cond: Tensor | None = None) -> DenseContext:
        return replace(super().start(batch, cond), rope=self.rotation([0, 1]))

    def encode(self, x: Float[Tensor, "b 2 c h w"], context: DenseContext) -> DenseContext:
        """The context with this pair's keys and values appended."""
        cache = context.cache.for_appending()
        modulations = self.modulations(x.new_full((len(x), 1), CLEAN_TIMESTEP), None)
        self.through(self.tokens(x), modulations, context.rope, cache, context.text)
        cache, frame = cache.append(self.geometry.tokens_per_chunk), context.frame + CHUNK
        return replace(context, frame=frame, cache=cache, rope=self.rotation([frame, frame + 1]))

    def denoise(
        self, x: Float[Tensor, "b 2 c h w"], sigma: Float[Tensor, " b"], context: DenseContext
    ) -> Float[Tensor, "b 2 c h w"]:
        """The velocity of the current pair, which the context's prompt and past decide."""
        modulations = context.modulations or self.modulations(1000 * sigma[:, None], None)
        tokens = self.through(self.tokens(x), modulations, context.rope, context.cache, context.text)
        return self.velocity(tokens, modulations)

    forward = denoise


def _key_age(frame: int, keys: int) -> Int[Tensor, " k"]:
    past = torch.arange(frame, 0, -1)
    return torch.cat([past, torch.zeros(CHUNK, dtype=torch.long)]).repeat_interleave((SIDE // 2) ** 2)


def model(seed: int = 0, layers: int = 2) -> ChunkedTwin:
    """The network with weights none of which is zero; its checkpoint, if it had one, would say nothing."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        network = ChunkedTwin(layers)
        for weight in network.parameters():
            weight += 0.2 * torch.randn(weight.shape)
    network.source = Source(Path("twin.safetensors"), "0" * 64)
    return network.eval().requires_grad_(False)
