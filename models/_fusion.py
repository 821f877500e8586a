"""How a separated model's decoder takes in the encoder's features."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from models._blocks import Rope

FUSIONS = ("token_concat", "token_concat_projected", "channel_concat", "add", "prefix")
"""How the decoder takes the encoder's features c: as tokens beside the noisy ones (the paper's), the same
after a norm and a projection, as channels, as a summand, or as a prefix whose keys and values in every
decoder layer do not depend on the noise, so that they are computed once per frame."""


class Join(nn.Module):
    """The decoder's input from noisy tokens and context tokens, for every fusion but prefix."""

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
        if self.fusion == "add":
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
