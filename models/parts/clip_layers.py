"""What a network offers so that its layers run over whole clips, as teacher forcing does."""

from typing import Any, Protocol, runtime_checkable

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
