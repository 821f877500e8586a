"""A model that is checked, with random clips and conditions of its own kind, and passes over them."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from framelens.diffusion.contract import CausalDiffuser, Traits, module_of
from framelens.diffusion.contract import traits as read_traits
from framelens.diffusion.sampler import ForwardPass, OnPass, announce_as, begin, encode, ignore_pass, rollout
from framelens.diffusion.schedule import sigma_grid

ROUND_OFF = {torch.float64: 1e-9, torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""Differences, relative to the largest value, that another order of operations may make."""


@dataclass(frozen=True)
class Check:
    """One result: what must hold, what was found, and whether it holds (None: not applicable)."""

    name: str
    claim: str
    found: str
    holds: bool | None
    remedy: str = ""
    """What to do if it does not hold."""

    @property
    def line(self) -> str:
        """All of it in one line."""
        verdict = {True: "holds", False: "DOES NOT HOLD", None: "not examined"}[self.holds]
        todo = f" -> {self.remedy}" if self.holds is False else ""
        return f"{verdict:<14} {self.name:<11} {self.claim}: {self.found}{todo}"


@dataclass(frozen=True)
class CheckedModel:
    """The model, and its inputs: clips of `chunks` chunks of random frames, `steps` denoising steps."""

    model: CausalDiffuser
    chunks: int = 3
    steps: int = 2
    seed: int = 0
    all_layers: bool = False
    """Edit the points of every layer. False: of a deep network, those of three layers."""
    videos: str | None = None
    """Clips like those that the model was trained on: a world, films or a file of latents; None for what the
    model says."""

    def __post_init__(self):
        if self.chunks < 3 or self.steps < 1:
            raise ValueError(
                f"a check needs at least 3 chunks and 1 step, got {self.chunks} and {self.steps}: one chunk "
                "to change, one before it and one after it"
            )
        _ = self.traits  # wrong traits are refused before the first check

    @cached_property
    def traits(self) -> Traits:
        """The optional attributes of the model."""
        return read_traits(self.model)

    @cached_property
    def dtype(self) -> torch.dtype:
        """The type of most weights."""
        counts: dict[torch.dtype, int] = {torch.float32: 0}
        for weight in module_of(self.model).parameters():
            if weight.is_floating_point():
                counts[weight.dtype] = counts.get(weight.dtype, 0) + weight.numel()
        return max(counts, key=lambda dtype: counts[dtype])

    @cached_property
    def device(self) -> torch.device:
        """The device on which passes begin."""
        first = next(module_of(self.model).parameters(), torch.zeros(0)).device
        return self.traits.device or first

    @property
    def round_off(self) -> float:
        """The tolerance of this dtype, relative to the largest value."""
        return ROUND_OFF.get(self.dtype, 1e-5)

    @property
    def chunk(self) -> int:
        """Frames per chunk."""
        return self.model.geometry.frames_per_chunk

    @cached_property
    def first(self) -> int:
        """The first chunk that can be denoised: 1 for a model whose first chunk must be given."""
        context = self.remember(self.clip(0), 0, self.cond())
        try:
            self.velocity(self.clip(1), 0, context)
        except ValueError:
            return 1
        return 0

    @cached_property
    def points(self) -> list[str]:
        """All hook points except explicit attention maps, which may not fit into memory."""
        return [name for name in self.model.hook_dict if "pattern" not in name]

    def clip(self, seed: int = 0, batch: int = 1) -> Float[Tensor, "b f c h w"]:
        """Random frames for all chunks."""
        g = self.model.geometry
        return self._random((batch, self.chunks * self.chunk, g.channels, g.height, g.width), seed)

    def _random(self, shape: tuple[int, ...], seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(1009 * self.seed + seed)
        return torch.randn(shape, generator=generator).to(self.device, self.dtype)

    def cond(self, batch: int = 1, seed: int = 0) -> Tensor | None:
        """Random conditions of the model's kind. ValueError if the model does not declare their number."""
        null, takes, frames = self.traits.null_condition, self.traits.takes, self.chunks * self.chunk
        if takes is None:
            return None
        places = (batch, frames) if takes == "actions" else (batch,)
        if isinstance(null, Tensor):
            return self._random((*places, *null.shape), 100 + seed)
        stored = {} if self.traits.describe is None else self.traits.describe()
        if takes == "text" and stored.get("text_width"):
            return self._random((batch, stored["text_tokens"], stored["text_width"]), 100 + seed)
        count = max(null or 0, stored.get("conditions") or 0)
        if takes == "text" or count < 1:
            raise ValueError(
                f"the model takes {takes}, but neither null_condition nor describe() declares their kind "
                "(conditions, or text_tokens and text_width)"
            )
        return (
            ((torch.arange(batch * frames) + seed) % count)
            .view(batch, frames)
            .to(self.device)[(slice(None), 0) if takes == "labels" else ...]
        )

    def frames(self, chunk: int) -> slice:
        """The frames of a chunk."""
        return slice(chunk * self.chunk, (chunk + 1) * self.chunk)

    def sigma(self, chunk: int) -> float:
        """The noise level at which that chunk is denoised."""
        return 0.9 - 0.6 * chunk / (self.chunks - 1)

    @torch.no_grad()
    def rollout(self, on_pass: OnPass = ignore_pass) -> Tensor:
        """A teacher-forced rollout in which every possible chunk is denoised."""
        wanted = set(range(self.first * self.chunk, self.chunks * self.chunk, self.chunk))
        grid = sigma_grid(self.steps)
        given, noise = self.clip(0), self.clip(1)
        return rollout(self.model, noise, grid, self.cond(), given, True, wanted, on_pass=on_pass)

    @torch.no_grad()
    def remember(self, video: Tensor, chunks: int, cond: Tensor | None = None) -> Any:
        """The context after the first chunks."""
        context = self.model.start(len(video), cond)
        for chunk in range(chunks):
            context = self.model.encode(video[:, self.frames(chunk)], context)
        return context

    @torch.no_grad()
    def velocity(self, noisy: Tensor, chunk: int, context: Any, on_pass: OnPass = ignore_pass) -> Tensor:
        """The velocity of one chunk of a noisy clip. The pass is announced."""
        on_pass(ForwardPass(chunk * self.chunk, 0, self.sigma(chunk), "denoise"))
        level = torch.full((len(noisy),), self.sigma(chunk), device=self.device)
        return self.model.denoise(noisy[:, self.frames(chunk)], level, context)

    @torch.no_grad()
    def encode_chunk(self, video: Tensor, chunk: int, context: Any, on_pass: OnPass = ignore_pass) -> Any:
        """The context after that chunk. The pass is announced."""
        frame = chunk * self.chunk
        announce = announce_as(on_pass, frame, 0, 0.0, "encode", coming=frame + self.chunk)
        return encode(self.model, self.traits, video[:, self.frames(chunk)], context, announce)

    @torch.no_grad()
    def walk(
        self, video: Tensor, noisy: Tensor, cond: Tensor | None, on_pass: OnPass = ignore_pass
    ) -> list[Tensor]:
        """The velocity of every chunk that can be denoised, given its true past. Every pass is announced."""
        announce = announce_as(on_pass, -1, 0, 0.0, "encode")
        context, velocities = begin(self.model, self.traits, len(video), cond, announce), []
        for chunk in range(self.chunks):
            if chunk >= self.first:
                velocities.append(self.velocity(noisy, chunk, context, on_pass))
            context = (
                context if chunk == self.chunks - 1 else self.encode_chunk(video, chunk, context, on_pass)
            )
        return velocities


def difference(actual: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest expected value; infinite if one is not finite."""
    if actual.shape != expected.shape or not torch.isfinite(actual).all():
        return float("inf")
    size = expected.abs().max().item() or 1.0
    return ((actual.float() - expected.float()).abs().max() / size).item()


def replace_frames(video: Tensor, span: slice, fresh: Tensor) -> Tensor:
    """The clip with the frames of that span taken from another one."""
    video = video.clone()
    video[:, span] = fresh[:, span]
    return video
