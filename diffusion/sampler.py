"""Frame by frame, each frame by many denoising steps: the rollout.

    video = rollout(model, noise, sigma_grid(25), cond=actions, given=clip[:, :4])
    video = rollout(model, noise, model.sampling.grid, cond=prompt, renoise=0)      # few-step distilled

Every forward pass is announced through `on_pass` before it happens, so no one has to count calls.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import repeat
from typing import Protocol, cast

import torch
from jaxtyping import Float
from torch import Tensor

from framelens.diffusion.contract import CausalDiffuser, Context, Traits, traits
from framelens.diffusion.passes import Announce as Announce
from framelens.diffusion.passes import Branch as Branch
from framelens.diffusion.passes import ForwardPass as ForwardPass
from framelens.diffusion.passes import OnPass as OnPass
from framelens.diffusion.passes import Role as Role
from framelens.diffusion.passes import announce_as as announce_as
from framelens.diffusion.passes import announce_branch as announce_branch
from framelens.diffusion.passes import ignore_pass as ignore_pass
from framelens.diffusion.transfer import send, send_levels


class Announcing(CausalDiffuser, Protocol):
    """A model of several branches (`announces`), which announces each of their passes itself."""

    def start(self, batch: int, cond: Tensor | None = None, announce: Announce = ignore_pass) -> Context: ...

    def encode(self, x: Tensor, context: Context, announce: Announce = ignore_pass) -> Context: ...

    def denoise(
        self, x: Tensor, sigma: Tensor, context: Context, announce: Announce = ignore_pass
    ) -> Tensor: ...


@torch.no_grad()
def rollout(
    model: CausalDiffuser,
    noise: Float[Tensor, "b f c h w"],
    sigmas: Float[Tensor, " steps_and_1"],
    cond: Tensor | None = None,
    given: Float[Tensor, "b g c h w"] | None = None,
    teacher_forced: bool = False,
    denoised_frames: set[int] | None = None,
    on_pass: OnPass = ignore_pass,
    renoise: int | None = None,
    first_sigmas: Float[Tensor, " first_steps_and_1"] | None = None,
) -> Float[Tensor, "b f c h w"]:
    """A video sampled chunk by chunk from `noise`, one Euler step per pair of neighbouring sigmas.

    Free-running: `given` holds the first g frames, the rest is sampled and each sampled frame becomes
    history. Teacher-forced: `given` holds all f frames, every frame is sampled from its true past.
    `denoised_frames` limits sampling (and its cost) to the chunks that begin with those frames; it needs
    teacher forcing, and the other frames are returned as given. `renoise` is a seed: each step then predicts
    the clean frames and adds new noise of the next level to them, as few-step distilled models are sampled.
    The first chunk that is sampled may have its own `first_sigmas` (Causal-Forcing++: more steps).

    >>> import framelens
    >>> import torch
    >>> from framelens.diffusion.schedule import sigma_grid
    >>> model = framelens.load("dense-tiles")
    >>> actions = torch.zeros(1, 2, dtype=torch.long)
    >>> framelens.rollout(model, torch.randn(1, 2, 3, 20, 20), sigma_grid(4), actions).shape
    torch.Size([1, 2, 3, 20, 20])
    """
    frames, given = noise.shape[1], noise[:, :0] if given is None else given
    _check(frames, given, teacher_forced, denoised_frames, model.geometry.frames_per_chunk)
    declared, grid = traits(model), send_levels(sigmas, noise.device)
    first = grid if first_sigmas is None else send_levels(first_sigmas, noise.device)
    context = begin(model, declared, len(noise), cond, announce_as(on_pass, -1, 0, 0.0, "encode"))
    chunk, video = model.geometry.frames_per_chunk, []
    for frame in range(0, frames, chunk):
        span = slice(frame, frame + chunk)
        is_given = frame < given.shape[1]
        x = given[:, span]
        is_wanted = denoised_frames is None or frame in denoised_frames
        if not is_given or (teacher_forced and is_wanted):
            x = _chunk(model, declared, noise[:, span], first, context, frame, on_pass, renoise)
            first = grid
        video.append(x)
        if frame + chunk < frames:
            finished = given[:, span] if is_given else x
            announce = announce_as(on_pass, frame, 0, 0.0, "encode", coming=frame + chunk)
            context = encode(model, declared, finished, context, announce)
    return torch.cat(video, dim=1)


def _chunk(
    model: CausalDiffuser,
    declared: Traits,
    noise: Tensor,
    grid: tuple[Tensor, list[float]],
    context: Context,
    frame: int,
    on_pass: OnPass,
    renoise: int | None,
) -> Tensor:
    """The frames of one chunk, sampled from its noise in that context."""
    (sigmas, levels), contexts = grid, prepare_steps(declared, grid[0][:-1], context)

    def velocity(x: Tensor, step: int) -> Tensor:
        announce = announce_as(on_pass, frame, step, levels[step], "denoise")
        return denoise(model, declared, x, sigmas[step].expand(len(x)), next(contexts), announce)

    def fresh(x: Tensor, step: int) -> Tensor | None:
        return None if renoise is None else fresh_noise(x, renoise, frame, step)

    return deque(sample(noise, levels, velocity, fresh), maxlen=1)[0]


def sample(
    x: Float[Tensor, "b f c h w"],
    levels: Sequence[float],
    velocity: Callable[[Tensor, int], Tensor],
    fresh: Callable[[Tensor, int], Tensor | None],
    first: int = 0,
) -> Iterator[Float[Tensor, "b f c h w"]]:
    """The frames at the beginning of step `first`, then those after it and after each later one.

    This is the sampler's loop. `velocity(x, step)` is asked once a step; `fresh(x, step)` is the noise with
    which the predicted clean frames are noised again, or None for an Euler step.
    """
    yield x
    for step in range(first, len(levels) - 1):
        x = take_step(x, velocity(x, step), levels[step], levels[step + 1], fresh(x, step))
        yield x


def begin(
    model: CausalDiffuser, declared: Traits, batch: int, cond: Tensor | None, announce: Announce
) -> Context:
    """The context in which nothing was seen; where making it is a pass of the network, that is announced."""
    if declared.announces:
        return cast(Announcing, model).start(batch, cond, announce)
    if declared.start_is_pass:
        announce(asks=declared.asks)
    return model.start(batch, cond)


def encode(
    model: CausalDiffuser, declared: Traits, x: Tensor, context: Context, announce: Announce
) -> Context:
    """The context after a finished frame. Each pass is announced: one, or two of a model that `asks`.

    Such a model first reads the frame, then asks for the next one. Where nothing listens (`ignore_pass`) its
    `encode` does both, which may be one pass.
    """
    if declared.announces:
        return cast(Announcing, model).encode(x, context, announce)
    announce()
    if not declared.asks:
        return model.encode(x, context)
    if declared.read is None or declared.ask is None:
        raise ValueError("a model that asks offers read(x, context) and ask(context, batch)")
    if announce is ignore_pass:
        return model.encode(x, context)
    context = declared.read(x, context)
    announce(asks=True)
    return declared.ask(context, len(x))


def denoise(
    model: CausalDiffuser, declared: Traits, x: Tensor, sigma: Tensor, context: Context, announce: Announce
) -> Tensor:
    """The velocity at noise level sigma [b]; each pass is announced."""
    if declared.announces:
        return cast(Announcing, model).denoise(x, sigma, context, announce)
    announce()
    return model.denoise(x, sigma, context)


def prepare_steps(declared: Traits, sigmas: Tensor, context: Context) -> Iterator[Context]:
    """The context at each denoising step, prepared by a model that can (`at_steps`)."""
    return (
        repeat(context, len(sigmas))
        if declared.at_steps is None
        else iter(declared.at_steps(sigmas, context))
    )


def _check(frames: int, given: Tensor, teacher_forced: bool, wanted: set[int] | None, chunk: int) -> None:
    if frames % chunk or given.shape[1] % chunk:
        raise ValueError(
            f"the model makes {chunk} frames at a time; {frames} with {given.shape[1]} given do not fit"
        )
    if teacher_forced and given.shape[1] != frames:
        raise ValueError(f"teacher forcing needs all {frames} frames given, got {given.shape[1]}")
    if given.shape[1] > frames:
        raise ValueError(f"{given.shape[1]} frames are given for a video of {frames}")
    if wanted is not None and not teacher_forced:
        raise ValueError("denoised_frames needs teacher_forced=True: a free run samples every frame")
    if wanted is not None and not wanted <= set(range(0, frames, chunk)):
        raise ValueError(
            f"denoised_frames {sorted(wanted)} are not all first frames of chunks below {frames}"
        )


def take_step(
    x: Float[Tensor, "b f c h w"],
    velocity: Float[Tensor, "b f c h w"],
    sigma: float,
    following: float,
    fresh: Float[Tensor, "b f c h w"] | None = None,
) -> Float[Tensor, "b f c h w"]:
    """x at the following noise level: by an Euler step, or noised again with `fresh` from the clean frames
    that the velocity predicts, (1 - s') (x - s v) + s' eps."""
    if fresh is None:
        return x + (following - sigma) * velocity
    return (1 - following) * (x - sigma * velocity) + following * fresh


def fresh_noise(like: Float[Tensor, "b f c h w"], seed: int, frame: int, step: int) -> Tensor:
    """The noise that is added after a step; by seed, frame and step alone, on every device."""
    place = ((seed * 10_007 + frame) * 10_007 + step) % 2**63
    return send(torch.randn(like.shape, generator=torch.Generator().manual_seed(place)), like.device).to(like)
