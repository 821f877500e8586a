"""The loss of causal consistency distillation: one step of the teacher, and both networks agree on its end.

    loss = consistency_loss(student, target, teacher, clean, noise, level, sigma_grid(20))

A consistency model predicts the clean frames from any point of the teacher's path from noise to data (Song et
al. 2023), so that few steps suffice: predict, add fresh noise of the next level, predict again.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from framelens.diffusion.schedule import add_noise

Velocity = Callable[[Tensor, Tensor], Tensor]
"""The velocity of every frame [b f c h w] of a clip, from its noisy frames and their noise levels [b f]."""
SOFTNESS = 0.00054
"""Where the pseudo-Huber loss turns from squared to absolute, for one value (Song and Dhariwal 2024)."""


def predict_clean(
    velocity: Velocity, noisy: Float[Tensor, "b f c h w"], sigma: Float[Tensor, "b f"]
) -> Float[Tensor, "b f c h w"]:
    """x_0 = x_sigma - sigma v; at sigma 0 the frames themselves."""
    return noisy - sigma[..., None, None, None] * velocity(noisy, sigma)


def consistency_loss(
    student: Velocity,
    target: Velocity,
    teacher: Velocity,
    clean: Float[Tensor, "b f c h w"],
    noise: Float[Tensor, "b f c h w"],
    level: Int[Tensor, " b"],
    grid: Float[Tensor, " levels_and_1"],
) -> Float[Tensor, "b f"]:
    """Distance between the student's clean frames at a level and the target's after one step of the teacher.

    `level` is the place of each clip's noise level in the grid, which falls from 1 to 0; all frames of a clip
    have the same. The teacher makes one Euler step to the next level, where `target`, an average of the
    student, predicts; at level 0 the teacher's frames are the prediction. Gradients reach the student alone.
    The distance is sqrt(|d|^2 + c^2) - c, c = SOFTNESS sqrt(values of a frame).
    """
    frames = clean.shape[1]
    here, there = (grid.to(clean.device)[place][:, None].expand(-1, frames) for place in (level, level + 1))
    noisy = add_noise(clean, noise, here)
    with torch.no_grad():
        step = (there - here)[..., None, None, None]
        after = noisy + step * teacher(noisy, here)
        wanted = predict_clean(target, after, there)
    difference = (predict_clean(student, noisy, here).float() - wanted.float()).flatten(2)
    soft = SOFTNESS * difference.shape[2] ** 0.5
    return (difference.square().sum(2) + soft**2).sqrt() - soft
