"""Frame by frame, each frame by many denoising steps: the rollout, and the contract it asks of a model.

    video = rollout(model, noise, sigma_grid(25), cond=actions, given=clip[:, :4])
    video = rollout(model, noise, model.sampling.grid, cond=prompt, renoise=0)      # few-step distilled

Every forward pass is announced through `on_pass` before it happens, so nobody counts calls.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from framelens.diffusion.guidance import Alone, Announce, Branch, silent

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

    @property
    def tokens_per_chunk(self) -> int:
        return self.frames_per_chunk * self.tokens_per_frame


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
        """The context with these finished frames taken into memory; once per chunk.

        A model whose encoder then runs again, over the coming frame as noise, says so by `asks` and offers
        both passes: `read(x, context)` and `ask(context, batch)`.
        """
        ...

    def denoise(self, x: Tensor, sigma: Tensor, context: Context) -> Tensor:
        """The velocity of the current frames at noise level sigma [b].

        A model may also offer `at_steps(sigmas, context)`: the context at each step of a sampler with these
        noise levels, with what depends on them alone computed once; the sampler then hands those to denoise.
        """
        ...


Role = Literal["denoise", "encode", "ask"]


@dataclass(frozen=True)
class ForwardPass:
    """One forward pass of a sampler, named before it happens; `frame` is the first of the chunk's frames.

    It is denoised, or, finished, encoded (sigma 0). A model that `asks` runs an encoder of its own over the
    coming frame as noise (sigma 1) before it is denoised.
    """

    frame: int
    step: int
    sigma: float
    role: Role
    branch: Branch = "cond"


OnPass = Callable[[ForwardPass], None]


@torch.no_grad()
def rollout(
    model: CausalDiffuser,
    noise: Float[Tensor, "b f c h w"],
    sigmas: Float[Tensor, " steps_and_1"],
    cond: Tensor | None = None,
    given: Float[Tensor, "b g c h w"] | None = None,
    teacher_forced: bool = False,
    denoised_frames: set[int] | None = None,
    on_pass: OnPass = silent,
    renoise: int | None = None,
) -> Float[Tensor, "b f c h w"]:
    """A video sampled chunk by chunk from `noise`, one Euler step per pair of neighbouring sigmas.

    Free-running: `given` holds the first g frames, the rest is sampled and each sampled frame becomes
    history. Teacher-forced: `given` holds all f frames, every frame is sampled from its true past.
    `denoised_frames` limits sampling (and its cost) to the chunks that begin with those frames; it needs
    teacher forcing, and the other frames are returned as given. `renoise` is a seed: each step then predicts
    the clean frames and noises them anew to the next level, as few-step distilled models are sampled.
    """
    frames = noise.shape[1]
    given = noise[:, :0] if given is None else given
    _check(frames, given, teacher_forced, denoised_frames, model.geometry.frames_per_chunk)
    branches = _branches(model)
    sigmas = sigmas.to(noise.device)
    contexts = branches.start(len(noise), cond, announcing(on_pass, -1, 0, 0.0, "encode"))
    chunk, video = model.geometry.frames_per_chunk, []
    for frame in range(0, frames, chunk):
        span = slice(frame, frame + chunk)
        is_given = frame < given.shape[1]
        x = given[:, span]
        if not is_given or (teacher_forced and _wanted(frame, denoised_frames)):
            x = _sample(branches, noise[:, span], sigmas, contexts, frame, on_pass, renoise)
        video.append(x)
        if frame + chunk < frames:
            finished = given[:, span] if is_given else x
            announce = announcing(on_pass, frame, 0, 0.0, "encode", coming=frame + chunk)
            contexts = branches.encode(finished, contexts, announce)
    return torch.cat(video, dim=1)


def _branches(model: Any) -> Alone:
    return model if isinstance(model, Alone) else Alone(model)


def announcing(on_pass: OnPass, frame: int, step: int, sigma: float, role: Role, coming: int = 0) -> Announce:
    """Announces passes of that moment, or such that ask for the coming frame."""

    def announce(branch: Branch, asks: bool = False) -> None:
        moment = (coming, 0, 1.0, "ask") if asks else (frame, step, sigma, role)
        on_pass(ForwardPass(*moment, branch))

    return announce


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
    if wanted is not None and not wanted <= set(range(0, frames, chunk)):
        raise ValueError(
            f"denoised_frames {sorted(wanted)} are not all first frames of chunks below {frames}"
        )


def stepped(
    x: Float[Tensor, "b f c h w"],
    velocity: Float[Tensor, "b f c h w"],
    sigma: float,
    following: float,
    fresh: Float[Tensor, "b f c h w"] | None = None,
) -> Float[Tensor, "b f c h w"]:
    """x at the following noise level: by an Euler step, or noised anew with `fresh` from the clean frames
    that the velocity predicts, (1 - s') (x - s v) + s' eps."""
    if fresh is None:
        return x + (following - sigma) * velocity
    return (1 - following) * (x - sigma * velocity) + following * fresh


def fresh_noise(like: Float[Tensor, "b f c h w"], seed: int, frame: int, step: int) -> Tensor:
    """The noise that is added anew behind a step; by seed, frame and step alone, on every device."""
    place = ((seed * 10_007 + frame) * 10_007 + step) % 2**63
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(place)).to(like)


def _sample(
    branches: Alone, x: Tensor, sigmas: Tensor, contexts, frame: int, on_pass: OnPass, renoise: int | None
) -> Tensor:
    levels = sigmas.tolist()
    for step, own in enumerate(branches.at_steps(sigmas[:-1], contexts)):
        announce = announcing(on_pass, frame, step, levels[step], "denoise")
        velocity = branches.denoise(x, sigmas[step].expand(len(x)), own, announce)
        fresh = None if renoise is None else fresh_noise(x, renoise, frame, step)
        x = stepped(x, velocity, levels[step], levels[step + 1], fresh)
    return x
