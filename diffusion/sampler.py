"""Frame by frame, each frame by many denoising steps: the rollout, and the contract it asks of a model.

    video = rollout(model, noise, sigma_grid(25), cond=actions, given=clip[:, :4])

Every forward pass is announced through `on_pass` before it happens, so nobody counts calls.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from diffusion.guidance import Guided

Context = Any
"""What a model remembers of finished frames: a value, passed in and returned, never kept on the module."""


@dataclass(frozen=True)
class Geometry:
    """The shape of a model's videos and of its token grid."""

    frames_per_chunk: int
    channels: int
    height: int
    width: int
    patch: int
    layers: int
    heads: int
    d_model: int

    @property
    def rows(self) -> int:
        return self.height // self.patch

    @property
    def cols(self) -> int:
        return self.width // self.patch

    @property
    def tokens_per_frame(self) -> int:
        return self.rows * self.cols


@runtime_checkable
class CausalDiffuser(Protocol):
    """What a sampler, a probe and a benchmark ask of any model; x is [b f c h w], f frames per chunk."""

    @property
    def geometry(self) -> Geometry: ...

    @property
    def hook_dict(self) -> Mapping[str, nn.Module]: ...

    @property
    def attn_dict(self) -> Mapping[str, Any]: ...

    def start(self, batch: int, cond: Tensor | None = None) -> Context:
        """A context in which nothing has been seen yet; cond holds the conditions of the whole clip."""
        ...

    def encode(self, x: Tensor, context: Context) -> Context:
        """The context with these finished frames taken into memory; once per frame."""
        ...

    def denoise(self, x: Tensor, sigma: Tensor, context: Context) -> Tensor:
        """The velocity of the current frames at noise level sigma [b]."""
        ...


@dataclass(frozen=True)
class ForwardPass:
    """One forward pass of a sampler, named before it happens."""

    frame: int
    step: int
    sigma: float
    role: Literal["denoise", "encode"]
    branch: Literal["cond", "uncond"] = "cond"


OnPass = Callable[[ForwardPass], None]


def _silent(_: ForwardPass) -> None:
    pass


@torch.no_grad()
def rollout(
    model: CausalDiffuser,
    noise: Float[Tensor, "b f c h w"],
    sigmas: Float[Tensor, " steps_and_1"],
    cond: Int[Tensor, "b ..."] | None = None,
    given: Float[Tensor, "b g c h w"] | None = None,
    teacher_forced: bool = False,
    denoised_frames: set[int] | None = None,
    on_pass: OnPass = _silent,
) -> Float[Tensor, "b f c h w"]:
    """A video sampled frame by frame from `noise`, one Euler step per pair of neighbouring sigmas.

    Free-running: `given` holds the first g frames, the rest is sampled and each sampled frame becomes
    history. Teacher-forced: `given` holds all f frames, every frame is sampled from its true past.
    `denoised_frames` limits sampling (and its cost) to those frames; it needs teacher forcing, and the
    other frames are returned as given.
    """
    frames = noise.shape[1]
    given = noise[:, :0] if given is None else given
    _check(frames, given, teacher_forced, denoised_frames, model.geometry.frames_per_chunk)
    context, video = _start(model, len(noise), cond, on_pass), []
    chunk = model.geometry.frames_per_chunk
    for frame in range(0, frames, chunk):
        span = slice(frame, frame + chunk)
        is_given = frame < given.shape[1]
        x = given[:, span]
        if not is_given or (teacher_forced and _wanted(frame, denoised_frames)):
            x = _sample(model, noise[:, span], sigmas, context, frame, on_pass)
        video.append(x)
        if frame + chunk < frames:
            context = _encode(model, given[:, span] if is_given else x, context, frame, on_pass)
    return torch.cat(video, dim=1)


def _start(model, batch: int, cond: Tensor | None, on_pass: OnPass) -> Context:
    """The empty context; where making it is a pass of the network, that pass is announced as frame -1."""
    inner = model.model if isinstance(model, Guided) else model
    if not getattr(inner, "start_is_pass", False):
        return model.start(batch, cond)
    if not isinstance(model, Guided):
        on_pass(ForwardPass(-1, 0, 0.0, "encode"))
        return model.start(batch, cond)
    started = {}
    for branch, own in model.conditions(cond).items():
        on_pass(ForwardPass(-1, 0, 0.0, "encode", branch))
        started[branch] = inner.start(batch, own)
    return started


def _wanted(frame: int, denoised_frames: set[int] | None) -> bool:
    return denoised_frames is None or frame in denoised_frames


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


def _sample(model, x: Tensor, sigmas: Tensor, context: Context, frame: int, on_pass: OnPass) -> Tensor:
    levels = sigmas.tolist()
    for step, (sigma, following) in enumerate(zip(levels[:-1], levels[1:], strict=True)):
        level = sigmas[step].to(x.device).expand(len(x))
        velocity = _velocity(model, x, level, context, ForwardPass(frame, step, sigma, "denoise"), on_pass)
        x = x + (following - sigma) * velocity
    return x


def _velocity(model, x: Tensor, sigma: Tensor, context: Context, at: ForwardPass, on_pass: OnPass) -> Tensor:
    if not isinstance(model, Guided):
        on_pass(at)
        return model.denoise(x, sigma, context)
    velocity = {}
    for branch, own in context.items():
        on_pass(ForwardPass(at.frame, at.step, at.sigma, at.role, branch))
        velocity[branch] = model.model.denoise(x, sigma, own)
    return model.combine(velocity)


def _encode(model, x: Tensor, context: Context, frame: int, on_pass: OnPass) -> Context:
    if not isinstance(model, Guided):
        on_pass(ForwardPass(frame, 0, 0.0, "encode"))
        return model.encode(x, context)
    encoded = {}
    for branch, own in context.items():
        on_pass(ForwardPass(frame, 0, 0.0, "encode", branch))
        encoded[branch] = model.model.encode(x, own)
    return encoded
