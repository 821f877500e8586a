"""Guidance: two branches of one model, one combination.

    video = rollout(guided(model, scale=1.5), noise, sigmas, cond)

A branch is the same model with another context. The sampler runs the branches one after the other and
announces each; v = v_uncond + scale (v_cond - v_uncond) (Ho and Salimans 2022).
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor


@dataclass(frozen=True)
class Guided:
    """A model run with and without its condition; satisfies the contract of a CausalDiffuser."""

    model: Any
    scale: float

    @property
    def geometry(self):
        return self.model.geometry

    @property
    def hook_dict(self):
        return self.model.hook_dict

    @property
    def attn_dict(self):
        return self.model.attn_dict

    def start(self, batch: int, cond: Tensor | None = None) -> dict[str, Any]:
        """The contexts of both branches; the uncond one carries the model's null condition."""
        return {branch: self.model.start(batch, own) for branch, own in self.conditions(cond).items()}

    def conditions(self, cond: Tensor | None) -> dict[Literal["cond", "uncond"], Tensor]:
        """What each branch is conditioned on."""
        if cond is None:
            raise ValueError("guidance needs the conditions of the clip; give cond")
        return {"cond": cond, "uncond": torch.full_like(cond, self.model.null_condition)}

    def encode(self, x: Tensor, context: dict[str, Any]) -> dict[str, Any]:
        return {branch: self.model.encode(x, context[branch]) for branch in context}

    def denoise(self, x: Tensor, sigma: Tensor, context: dict[str, Any]) -> Tensor:
        return self.combine({branch: self.model.denoise(x, sigma, context[branch]) for branch in context})

    def combine(self, velocity: dict[str, Tensor]) -> Tensor:
        return velocity["uncond"] + self.scale * (velocity["cond"] - velocity["uncond"])


def guided(model: Any, scale: float) -> Any:
    """The model under guidance of that scale; scale 1 is the model itself.

    Raises ValueError for a model that has no null condition to be guided away from.
    """
    if scale == 1:
        return model
    if getattr(model, "null_condition", None) is None:
        raise ValueError(f"guidance {scale} needs a conditional model; this one takes no actions or labels")
    return Guided(model, scale)
