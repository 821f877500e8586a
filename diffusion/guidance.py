"""Guidance: two branches of one model, one combination.

    video = rollout(guide(model, scale=1.5), noise, sigmas, cond)
    video = rollout(guide(model, scale=5, null=negative_prompt), noise, sigmas, prompt)
    video = rollout(guide(model, scale=1.5, negative="context"), noise, sigmas, cond)

A branch is the same model with another context. The sampler runs the branches one after the other and
announces each; v = v_uncond + scale (v_cond - v_uncond) (Ho and Salimans 2022).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from framelens.diffusion.around import Around
from framelens.diffusion.contract import CausalDiffuser, Context, Traits, traits
from framelens.diffusion.sampler import (
    Announce,
    Branch,
    announce_branch,
    begin,
    denoise,
    encode,
    ignore_pass,
    prepare_steps,
)

Contexts = dict[Branch, Context]


@dataclass(frozen=True)
class Guided(Around):
    """A model run under its condition and under another one; satisfies the contract of a CausalDiffuser.

    A context of it is one of the model for each branch. It announces the passes of both itself.
    """

    model: CausalDiffuser
    scale: float
    null: Any = None
    """What the other branch is conditioned on; None for the model's null condition."""

    announces = True
    hides = Around.hides | {"start_is_pass", "asks", "read", "ask", "disturbed", "disturbed_is_pass"}

    @cached_property
    def declared(self) -> Traits:
        """The traits of the inner model."""
        return traits(self.model)

    def start(self, batch: int, cond: Tensor | None = None, announce: Announce = ignore_pass) -> Contexts:
        """The empty context by branch."""
        return {
            branch: begin(self.model, self.declared, batch, own, announce_branch(announce, branch))
            for branch, own in self.conditions(cond).items()
        }

    def encode(self, x: Tensor, context: Contexts, announce: Announce = ignore_pass) -> Contexts:
        """Every branch's context after a finished frame."""
        return {
            branch: encode(self.model, self.declared, x, own, announce_branch(announce, branch))
            for branch, own in context.items()
        }

    def denoise(
        self, x: Tensor, sigma: Tensor, context: Contexts, announce: Announce = ignore_pass
    ) -> Tensor:
        """The combined velocity of all branches."""
        return self.combine(
            {
                branch: denoise(self.model, self.declared, x, sigma, own, announce_branch(announce, branch))
                for branch, own in context.items()
            }
        )

    def at_steps(self, sigmas: Tensor, context: Contexts) -> Iterator[Contexts]:
        """The contexts at each denoising step, prepared together by a model that can."""
        prepared = [prepare_steps(self.declared, sigmas, own) for own in context.values()]
        return (dict(zip(context, step, strict=True)) for step in zip(*prepared, strict=True))

    def conditions(self, cond: Tensor | None) -> dict[Branch, Tensor | None]:
        """The clip's own, and the null condition."""
        if cond is None:
            raise ValueError("guidance needs the conditions of the clip; give cond")
        null = self.declared.null_condition if self.null is None else self.null
        return {"cond": cond, "uncond": null_like(cond, null)}

    def combine(self, velocity: Mapping[Branch, Tensor]) -> Tensor:
        return velocity["uncond"] + self.scale * (velocity["cond"] - velocity["uncond"])


@dataclass(frozen=True)
class ContextGuided(Guided):
    """A separated model guided away from a disturbed past: noise on its features (Bai et al. 2026, eq. 7).

    The condition stays in both branches, and the encoder runs once: the negative context is the other one
    with noise of that strength, drawn again for each frame from the seed.
    """

    strength: float = 0.05
    seed: int = 0

    def conditions(self, cond: Tensor | None) -> dict[Branch, Tensor | None]:
        """The clip's own; the negative context is made from the other."""
        return {"cond": cond}

    def start(self, batch: int, cond: Tensor | None = None, announce: Announce = ignore_pass) -> Contexts:
        """The context, and the same with noise on its features."""
        return self._with_negative(super().start(batch, cond, announce)["cond"], announce)

    def encode(self, x: Tensor, context: Contexts, announce: Announce = ignore_pass) -> Contexts:
        """The context after a finished frame, and the same with noise on its features."""
        return self._with_negative(super().encode(x, {"cond": context["cond"]}, announce)["cond"], announce)

    def _with_negative(self, context: Context, announce: Announce) -> Contexts:
        assert self.declared.disturbed is not None  # `guide` refuses such a model
        if self.declared.disturbed_is_pass:
            announce("uncond")
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + context.frame)
        return {"cond": context, "uncond": self.declared.disturbed(context, self.strength, generator)}


def null_like(cond: Tensor, null: Any) -> Tensor:
    """The null condition in the shape of `cond`: a number everywhere, or a tensor for each clip [t w]."""
    if not isinstance(null, Tensor):
        return torch.full_like(cond, null)
    null = null.to(cond)
    return null.expand(len(cond), *null.shape) if null.ndim == cond.ndim - 1 else null.expand_as(cond)


def guide(
    model: CausalDiffuser,
    scale: float,
    negative: Literal["condition", "context"] = "condition",
    strength: float = 0.05,
    seed: int = 0,
    null: Any = None,
) -> CausalDiffuser:
    """The model under guidance of that scale, away from a null condition or from a disturbed context.

    `null` is a number or a tensor for each clip, such as a negative prompt [t w]; None is the model's own
    null condition. Scale 1 is the model itself. Raises ValueError for a model that has no such negative.
    """
    if scale == 1:
        return model
    if negative == "context":
        if traits(model).disturbed is None:
            raise ValueError(
                f"guidance {scale} by context needs a separated model (SCD), whose features can be disturbed"
            )
        return ContextGuided(model, scale, strength=strength, seed=seed)
    if null is None and traits(model).null_condition is None:
        raise ValueError(f"guidance {scale} needs a conditional model; this one has no null condition")
    return Guided(model, scale, null)
