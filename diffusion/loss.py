"""The flow-matching loss of a frame-causal diffuser trained by teacher forcing."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from framelens.diffusion.contract import CausalDiffuser, traits
from framelens.diffusion.schedule import add_noise


def flow_matching_loss(
    model: CausalDiffuser,
    clean: Float[Tensor, "b f c h w"],
    noise: Float[Tensor, "b kf c h w"],
    sigma: Float[Tensor, "b kf"],
    cond: Tensor | None = None,
    seen: Float[Tensor, "b f c h w"] | None = None,
) -> Float[Tensor, "b kf"]:
    """Mean squared velocity error of each frame given its clean past (Bai et al. 2026, eq. 4).

    `model.teacher_forced(clean, noisy, sigma, cond)` predicts the velocity of every frame in one pass. Noise
    and sigma may hold k draws of the clip, one after the other, for a network that uses its past k times.
    `seen` is the clip as later frames see it, where that is not `clean`.
    """
    seen = clean if seen is None else seen
    teacher_forced = traits(model).teacher_forced
    if teacher_forced is None:
        raise ValueError(f"a {type(model).__name__} has no teacher_forced, by which it could be trained")
    return velocity_error(lambda noisy, sigma: teacher_forced(seen, noisy, sigma, cond), clean, noise, sigma)


def velocity_error(
    velocity_of: Callable[[Tensor, Tensor], Tensor],
    clean: Float[Tensor, "b f c h w"],
    noise: Float[Tensor, "b kf c h w"],
    sigma: Float[Tensor, "b kf"],
) -> Float[Tensor, "b kf"]:
    """Mean squared error of `velocity_of(noisy, sigma)` for each frame of k noise draws of a clip."""
    target = clean.repeat(1, noise.shape[1] // clean.shape[1], 1, 1, 1)
    velocity = velocity_of(add_noise(target, noise, sigma), sigma)
    return torch.mean((velocity.float() - (noise - target).float()) ** 2, dim=(2, 3, 4))
