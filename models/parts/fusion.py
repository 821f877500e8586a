"""How a separated model's decoder takes in the encoder's features."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from framelens.models.parts.blocks import Rope
from framelens.models.parts.history import History
from framelens.models.parts.stack import Modulations, Stack
from framelens.models.parts.text import TextKeys

FUSIONS = ("token_concat", "token_concat_projected", "channel_concat", "add", "prefix", "residual")
"""How the decoder takes the encoder's features c: as tokens beside the noisy ones (the paper's), the same
after a norm and a projection, as channels, as a summand, as a prefix whose keys and values in every decoder
layer do not depend on the noise, so that they are computed once per frame, or as a residual: a summand
behind the decoder's first `head` layers, c being what the encoder's layers behind as many added to the
residual stream, as in a dense network that was split."""


class Join(nn.Module):
    """What the decoder goes on with, from noisy tokens and context tokens; not asked for a prefix."""

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
        """The decoder's input; where context and noisy tokens stand side by side, the noisy ones are last."""
        if self.fusion in ("add", "residual"):
            return noisy + features
        if self.fusion == "channel_concat":
            return self.projection(torch.cat([noisy, features], dim=-1))
        if self.fusion == "token_concat_projected":
            features = self.projection(self.norm(features))
        return torch.cat([features, noisy], dim=1)

    def places(self, rope: Rope) -> tuple[Tensor, Tensor]:
        """The positions of that input: context and noisy tokens share theirs."""
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
    """What the encoder tells the decoder: its output or, for the residual fusion, what it added."""
    if config.fusion != "residual":
        return encoder.normalise(encoder.through(tokens, modulations, rope, history, text), modulations)
    entering = encoder.through(tokens, modulations, rope, history, text, range(config.head))
    behind = range(config.head, config.encoder_layers)
    return encoder.through(entering, modulations, rope, history, text, behind) - entering
