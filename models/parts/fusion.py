"""Fusions: how a separated model's decoder reads the encoder's features."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from framelens.models.parts.blocks import Rope
from framelens.models.parts.history import History
from framelens.models.parts.stack import Modulations, Stack
from framelens.models.parts.text import TextKeys

FUSIONS = ("token_concat", "token_concat_projected", "channel_concat", "add", "prefix", "residual")
"""How the decoder reads the encoder's features c.

token_concat: as tokens beside the noisy ones (the paper's). token_concat_projected: the same after a norm and
a projection. channel_concat: as channels. add: c is added to the noisy tokens. prefix: as tokens whose keys
and values do not depend on the noise, so that each decoder layer computes them once per frame. residual: c is
added after the decoder's first `head` layers; it is what the encoder's layers after its first `head` wrote to
the residual stream, as in a dense network that was split."""


class Join(nn.Module):
    """The decoder's input from noisy tokens and context tokens; the prefix fusion does not use it."""

    def __init__(self, fusion: str, width: int):
        super().__init__()
        self.fusion = fusion
        if fusion == "token_concat_projected":
            self.norm, self.projection = nn.LayerNorm(width), nn.Linear(width, width)
            nn.init.zeros_(self.projection.weight)
            nn.init.zeros_(self.projection.bias)
        if fusion == "channel_concat":
            self.projection = nn.Linear(2 * width, width)
            with torch.no_grad():  # it starts as a sum
                self.projection.weight.copy_(torch.eye(width).repeat(1, 2))
                self.projection.bias.zero_()

    def forward(
        self, noisy: Float[Tensor, "b n d"], features: Float[Tensor, "b n d"]
    ) -> Float[Tensor, "b m d"]:
        """The decoder's input; where it holds context and noisy tokens (m = 2n), the noisy ones are last."""
        if self.fusion in ("add", "residual"):
            return noisy + features
        if self.fusion == "channel_concat":
            return self.projection(torch.cat([noisy, features], dim=-1))
        if self.fusion == "token_concat_projected":
            features = self.projection(self.norm(features))
        return torch.cat([features, noisy], dim=1)

    def places(self, rope: Rope) -> tuple[Tensor, Tensor]:
        """RoPE tables of that input: a context token has the position of its noisy token."""
        if not self.fusion.startswith("token_concat"):
            return rope
        cos, sin = rope
        return torch.cat([cos, cos]), torch.cat([sin, sin])


def features_of(
    encoder: Stack,
    config: Any,
    tokens: Float[Tensor, "b n d"],
    modulations: Modulations,
    rope: Rope,
    history: History,
    text: TextKeys | None,
) -> Float[Tensor, "b n d"]:
    """The encoder's features for the decoder: its output or, for the residual fusion, what it added.

    The tokens enter the encoder at the layer `config.query_layer`.
    """
    first, head = config.query_layer, max(config.head, config.query_layer)
    if config.fusion != "residual":
        layers = range(first, config.encoder_layers)
        return encoder.normalise(
            encoder.through(tokens, modulations, rope, history, text, layers), modulations
        )
    entering = encoder.through(tokens, modulations, rope, history, text, range(first, head))
    later = range(head, config.encoder_layers)
    return encoder.through(entering, modulations, rope, history, text, later) - entering
