"""The gradient of a separated network with several noise draws, for the memory of one.

The encoder reads the clips once. The decoder is backpropagated for one draw after the other, from features
that are cut off from the encoder and gather their gradient; the encoder follows once, with that gradient.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from framelens.diffusion.loss import velocity_error


@runtime_checkable
class InTwoParts(Protocol):
    """A separated network whose parts pass over whole clips."""

    def read_clip(self, clean: Tensor, cond: Tensor | None) -> Tensor: ...

    def decode_clip(self, features: Tensor, noisy: Tensor, sigma: Tensor, cond: Tensor | None) -> Tensor: ...


def backpropagate_draws(
    model: InTwoParts,
    clean: Float[Tensor, "b f c h w"],
    noise: Float[Tensor, "b kf c h w"],
    sigma: Float[Tensor, "b kf"],
    cond: Tensor | None,
    history: Float[Tensor, "b f c h w"],
    forward_pass: Callable[[], AbstractContextManager],
    weight: float,
) -> Tensor:
    """The mean loss of k draws, of which `weight` times the gradient is added to the weights' gradients.

    Every forward pass is made within `forward_pass()`, every backward pass outside of it.
    """
    draws = noise.shape[1] // clean.shape[1]
    with forward_pass():
        read = model.read_clip(history, cond)
    features = read.detach().requires_grad_(read.requires_grad)
    losses = []
    for own_noise, own_sigma in zip(noise.chunk(draws, dim=1), sigma.chunk(draws, dim=1), strict=True):

        def predict(noisy: Tensor, sigma: Tensor) -> Tensor:
            return model.decode_clip(features, noisy, sigma, cond)

        with forward_pass():
            loss = velocity_error(predict, clean, own_noise, own_sigma).mean() / draws
        (weight * loss).backward()
        losses.append(loss.detach())
    if read.requires_grad:
        read.backward(features.grad)
    return torch.stack(losses).sum()
