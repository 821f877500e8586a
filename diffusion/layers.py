"""The layers of a network, run by ranges: what a model offers as the trait `stack`.

    stack = traits(model).stack
    entered = stack.enter(x, sigma, context)
    entered = entered._replace(tokens=stack.through(*entered, range(0, 6)))
    tokens = stack.through(*entered, range(6, model.geometry.layers))
    velocity = stack.velocity(tokens, entered.modulations)      # bit by bit model.denoise(x, sigma, context)

Between two ranges, tokens may be changed; `entered._replace(history=...)` gives the layers another past.
"""

from typing import Any, NamedTuple, Protocol, runtime_checkable

from torch import Tensor


class LayerInputs(NamedTuple):
    """What the layers of one denoising pass are given; `through` takes these in this order.

    Of which kind the last four are is the network's own choice; what it does not have is None.
    """

    tokens: Tensor
    """The embedded chunk [b n d], n = (frame row col)."""
    modulations: Any
    """What layers and output are given of the noise level and of actions or labels."""
    rope: Any
    """The positions of the tokens."""
    history: Any
    """The past that attention reads, with a method `attend(layer, q, k, v)` in framelens' own networks."""
    text: Any
    """The prompt's keys and values."""


@runtime_checkable
class LayerStack(Protocol):
    """The layers of a network as `denoise` runs them: all ranges in order give `denoise`, bit by bit."""

    def enter(self, x: Tensor, sigma: Tensor, context: Any) -> LayerInputs:
        """The tokens of the current chunk x [b f c h w] at noise level sigma [b], and the other inputs."""
        ...

    def through(
        self, tokens: Tensor, modulations: Any, rope: Any, history: Any, text: Any, layers: range
    ) -> Tensor:
        """The residual stream [b n d] after these layers, given that before them."""
        ...

    def velocity(self, tokens: Tensor, modulations: Any) -> Tensor:
        """The velocity [b f c h w] from the residual stream after the last layer."""
        ...
