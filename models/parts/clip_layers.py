"""The passes of a separated network over whole clips, on layers that a network offers for its clips.

features = read_clip(encoder, head, clean, queries, sigma, cond)    # the encoder, once
velocity = decode_clip(decoder, head, features, noisy, sigma, cond) # the decoder, k draws of noise
"""

from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

from framelens.diffusion.layers import LayerInputs


@runtime_checkable
class ClipLayers(Protocol):
    """A network whose layers run over whole clips of f frames in chunks, as its teacher forcing does."""

    blocks: nn.ModuleList

    def enter_clip(self, clean: Tensor, noisy: Tensor, sigma: Tensor, cond: Tensor | None) -> LayerInputs:
        """What the layers are given in one pass over [clean | noisy], [b f c h w] each, noise levels [b f].

        A clean chunk sees the clean chunks up to itself, a noisy one the earlier clean ones and itself.
        """
        ...

    def enter_alone(self, noisy: Tensor, sigma: Tensor, frames: int, cond: Tensor | None) -> LayerInputs:
        """What the layers are given in one pass over k draws of a clip of that many frames [b kf c h w].

        Each chunk sees itself and nothing else.
        """
        ...

    def through(
        self, tokens: Tensor, modulations: Any, rope: Any, history: Any, text: Any, layers: range
    ) -> Tensor:
        """The residual stream [b n d] after these layers, given that before them."""
        ...

    def velocity(self, tokens: Tensor, modulations: Any) -> Tensor:
        """The velocity [b f c h w] from the residual stream after the last layer."""
        ...


def read_clip(
    encoder: ClipLayers,
    head: int,
    clean: Float[Tensor, "b f c h w"],
    queries: Float[Tensor, "b f c h w"],
    sigma: Float[Tensor, "b f"],
    cond: Tensor | None,
) -> Float[Tensor, "b n d"]:
    """What the encoder's layers after its first `head` add to the stream of each query, n = (frame row col).

    One pass over [clean | queries], the queries at noise levels sigma.
    """
    entered = encoder.enter_clip(clean, queries, sigma, cond)
    entering = encoder.through(*entered, range(head))
    after = encoder.through(*entered._replace(tokens=entering), range(head, len(encoder.blocks)))
    return (after - entering)[:, after.shape[1] // 2 :]


def decode_clip(
    decoder: ClipLayers,
    head: int,
    features: Float[Tensor, "b n d"],
    noisy: Float[Tensor, "b kf c h w"],
    sigma: Float[Tensor, "b kf"],
    frames: int,
    cond: Tensor | None,
) -> Float[Tensor, "b kf c h w"]:
    """The velocity of k draws of a clip of that many frames, one after the other; each chunk is alone.

    The features of `read_clip` are added after the decoder's first `head` layers.
    """
    entered = decoder.enter_alone(noisy, sigma, frames, cond)
    tokens = decoder.through(*entered, range(head))
    tokens = tokens + features.repeat(1, noisy.shape[1] // frames, 1)
    tokens = decoder.through(*entered._replace(tokens=tokens), range(head, len(decoder.blocks)))
    return decoder.velocity(tokens, entered.modulations)
