"""A network whose denoising pass is all of its layers, and which offers them to be run by ranges."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from framelens.diffusion.layers import LayerInputs, LayerStack


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
