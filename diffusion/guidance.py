"""Guidance: two branches of one model, one combination.

    video = rollout(guided(model, scale=1.5), noise, sigmas, cond)
    video = rollout(guided(model, scale=5, null=negative_prompt), noise, sigmas, prompt)
    video = rollout(guided(model, scale=1.5, negative="context"), noise, sigmas, cond)

A branch is the same model with another context. The sampler runs the branches one after the other and
announces each; v = v_uncond + scale (v_cond - v_uncond) (Ho and Salimans 2022).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from framelens.diffusion.around import handed_on

Branch = Literal["cond", "uncond"]
Announce = Callable[..., None]
"""Called with a branch before each pass of its network, and with True behind it where the pass asks."""
Contexts = dict[Branch, Any]


def silent(*_: Any) -> None:
    """An announcement that nobody hears."""


def started(model: Any, batch: int, cond: Tensor | None, announce: Callable[..., None]) -> Any:
    """The context in which nothing was seen; where making it is a pass of the network, that is announced."""
    if getattr(model, "start_is_pass", False):
        announce(getattr(model, "asks", False))
    return model.start(batch, cond)


def taken_in(model: Any, x: Tensor, context: Any, announce: Callable[..., None]) -> Any:
    """The context after a finished frame. Each pass is announced: one, or two of a model that `asks`.

    Such a model first reads the frame, then asks for the next one, which it says by announce(True).
    """
    announce()
    if not getattr(model, "asks", False):
        return model.encode(x, context)
    context = model.read(x, context)
    announce(True)
    return model.ask(context, len(x))


@dataclass(frozen=True)
class Alone:
    """A model as the one branch of its own sampling."""

    model: Any

    def conditions(self, cond: Tensor | None) -> dict[Branch, Tensor | None]:
        """What each branch is conditioned on."""
        return {"cond": cond}

    def start(self, batch: int, cond: Tensor | None = None, announce: Announce = silent) -> Contexts:
        """The empty context by branch."""
        return {
            branch: started(self.model, batch, own, partial(announce, branch))
            for branch, own in self.conditions(cond).items()
        }

    def encode(self, x: Tensor, contexts: Contexts, announce: Announce = silent) -> Contexts:
        """Every branch's context after a finished frame."""
        return {
            branch: taken_in(self.model, x, own, partial(announce, branch))
            for branch, own in contexts.items()
        }

    def denoise(self, x: Tensor, sigma: Tensor, contexts: Contexts, announce: Announce = silent) -> Tensor:
        """The velocity that the branches together say."""
        velocity: dict[Branch, Tensor] = {}
        for branch, own in contexts.items():
            announce(branch)
            velocity[branch] = self.model.denoise(x, sigma, own)
        return self.combine(velocity)

    def at_steps(self, sigmas: Tensor, contexts: Contexts) -> Iterator[Contexts]:
        """The contexts at each denoising step, prepared together by a model that can (`at_steps`)."""
        if not hasattr(self.model, "at_steps"):
            return (contexts for _ in range(len(sigmas)))
        prepared = [self.model.at_steps(sigmas, own) for own in contexts.values()]
        return (dict(zip(contexts, step, strict=True)) for step in zip(*prepared, strict=True))

    def combine(self, velocity: Mapping[Branch, Tensor]) -> Tensor:
        return velocity["cond"]


@dataclass(frozen=True)
class Guided(Alone):
    """A model run under its condition and under another one; satisfies the contract of a CausalDiffuser."""

    scale: float
    null: Any = None
    """What the other branch is conditioned on; None for the model's null condition."""

    geometry, hook_dict, attn_dict = handed_on("geometry", "hook_dict", "attn_dict")

    def conditions(self, cond: Tensor | None) -> dict[Branch, Tensor | None]:
        """The clip's own, and the null condition."""
        if cond is None:
            raise ValueError("guidance needs the conditions of the clip; give cond")
        null = self.model.null_condition if self.null is None else self.null
        return {"cond": cond, "uncond": null_like(cond, null)}

    def combine(self, velocity: Mapping[Branch, Tensor]) -> Tensor:
        return velocity["uncond"] + self.scale * (velocity["cond"] - velocity["uncond"])


@dataclass(frozen=True)
class ContextGuided(Guided):
    """A separated model guided away from a disturbed past: noise on its features (Bai et al. 2026, eq. 7).

    The condition stays in both branches, and the encoder runs once: the negative context is the other one
    with noise of that strength, drawn anew for each frame from the seed.
    """

    strength: float = 0.05
    seed: int = 0

    def conditions(self, cond: Tensor | None) -> dict[Branch, Tensor | None]:
        """The clip's own; the negative context is made from the other."""
        return Alone.conditions(self, cond)

    def start(self, batch: int, cond: Tensor | None = None, announce: Announce = silent) -> Contexts:
        """The context, and the same with noise on its features."""
        return self._with_negative(super().start(batch, cond, announce)["cond"], announce)

    def encode(self, x: Tensor, contexts: Contexts, announce: Announce = silent) -> Contexts:
        """The context after a finished frame, and the same with noise on its features."""
        return self._with_negative(super().encode(x, {"cond": contexts["cond"]}, announce)["cond"], announce)

    def _with_negative(self, context: Any, announce: Announce) -> Contexts:
        if self.model.disturbed_is_pass:
            announce("uncond")
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + context.frame)
        return {"cond": context, "uncond": self.model.disturbed(context, self.strength, generator)}


def null_like(cond: Tensor, null: Any) -> Tensor:
    """The null condition in the place of these: a number everywhere, or a tensor for each clip [t w]."""
    if not isinstance(null, Tensor):
        return torch.full_like(cond, null)
    null = null.to(cond)
    return null.expand(len(cond), *null.shape) if null.ndim == cond.ndim - 1 else null.expand_as(cond)


def guided(
    model: Any,
    scale: float,
    negative: Literal["condition", "context"] = "condition",
    strength: float = 0.05,
    seed: int = 0,
    null: Any = None,
) -> Any:
    """The model under guidance of that scale, away from a null condition or from a disturbed context.

    `null` is a number or a tensor for each clip, such as a negative prompt [t w]; None is the model's own
    null condition. Scale 1 is the model itself. Raises ValueError for a model that has no such negative.
    """
    if scale == 1:
        return model
    if negative == "context":
        if not hasattr(model, "disturbed"):
            raise ValueError(
                f"guidance {scale} by context needs a separated model (SCD), whose features can be disturbed"
            )
        return ContextGuided(model, scale, strength=strength, seed=seed)
    if null is None and getattr(model, "null_condition", None) is None:
        raise ValueError(f"guidance {scale} needs a conditional model; this one has no null condition")
    return Guided(model, scale, null)
