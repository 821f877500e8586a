"""A student's own rollout, with the gradient of one denoising step of each chunk (self-forcing).

    clip = roll_out_to_exit(student, noise, sampling.grid, 2, fresh, cond=actions, given=first)

Each chunk is denoised up to the exit step and is what that step predicts. Later chunks see it finished, as
they do when the student is sampled. Steps before the exit, and passes that encode, keep nothing for a
gradient.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from framelens.diffusion.contract import CausalDiffuser, Context, Traits, module_of, traits
from framelens.diffusion.sampler import (
    OnPass,
    announce_as,
    begin,
    denoise,
    encode,
    ignore_pass,
    take_step,
)

Fresh = Callable[[Tensor, int, int], Tensor]
"""Noise like a chunk's frames, for that first frame and step."""


def roll_out_to_exit(
    model: CausalDiffuser,
    noise: Float[Tensor, "b f c h w"],
    sigmas: Float[Tensor, " steps_and_1"],
    exit_step: int,
    fresh: Fresh,
    cond: Tensor | None,
    given: Float[Tensor, "b g c h w"],
    on_pass: OnPass = ignore_pass,
) -> Float[Tensor, "b f c h w"]:
    """The given frames, then each chunk as step `exit_step` predicts it from the student's own past.

    With the last step as the exit it is the clip that `rollout` samples with the same fresh noise. Only the
    passes of the exit step are differentiable, where gradients are enabled. Frames and given frames are whole
    chunks.
    """
    declared, chunk, frames = traits(model), model.geometry.frames_per_chunk, noise.shape[1]
    with torch.no_grad():
        announce = announce_as(on_pass, -1, 0, 0.0, "encode")
        context = begin(model, declared, len(noise), cond, announce)
    clip = []
    for frame in range(0, frames, chunk):
        span = slice(frame, frame + chunk)
        if frame < given.shape[1]:
            finished = given[:, span]
        else:
            finished = _predict_at_exit(
                model, declared, noise[:, span], sigmas, exit_step, fresh, context, frame, on_pass
            )
        clip.append(finished)
        if frame + chunk < frames:
            with torch.no_grad():
                announce = announce_as(on_pass, frame, 0, 0.0, "encode", coming=frame + chunk)
                context = encode(model, declared, finished.detach(), context, announce)
    return torch.cat(clip, dim=1)


def _predict_at_exit(
    model: CausalDiffuser,
    declared: Traits,
    x: Tensor,
    sigmas: Tensor,
    exit_step: int,
    fresh: Fresh,
    context: Context,
    frame: int,
    on_pass: OnPass,
) -> Tensor:
    """The clean frames of one chunk that the exit step predicts, after the steps before it."""
    levels = sigmas.tolist()

    def velocity(x: Tensor, step: int, seen: Context) -> Tensor:
        announce = announce_as(on_pass, frame, step, levels[step], "denoise")
        return denoise(model, declared, x, sigmas[step].to(x.device).expand(len(x)), seen, announce)

    with torch.no_grad():
        for step in range(exit_step):
            predicted = velocity(x, step, context)
            x = take_step(x, predicted, levels[step], levels[step + 1], fresh(x, frame, step))
    if torch.is_grad_enabled():
        torch.clear_autocast_cache()  # weights that were cast without gradients would be used again
        context = _copy_context(model, context)
    return x - levels[exit_step] * velocity(x, exit_step, context)


def _copy_context(model: CausalDiffuser, context: Context) -> Context:
    """The context with memory of its own, for a pass whose gradient later passes must not overwrite.

    Networks write the current keys into memory that contexts share. The network itself is not copied.
    """
    module = module_of(model)
    kept: dict[int, Any] = {
        id(part): part for part in (*module.modules(), *module.parameters(), *module.buffers())
    }
    return copy.deepcopy(context, kept)
