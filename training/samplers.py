"""The samplers that `framelens split` compares: dense, fetched once, separated, and their students."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from framelens import models
from framelens.diffusion.contract import module_of
from framelens.diffusion.schedule import Sampling
from framelens.models.variants.fetch_once import fetch_once
from framelens.records.plan import Plan
from framelens.training.build import build
from framelens.training.recipes import Recipe
from framelens.training.trade import TimedSampler

STEPS, FEWER = 20, (4, 2, 1)
"""Denoising steps, and the few steps that are tried."""


class Trained(NamedTuple):
    """The trained models of a comparison, by name or path; the last two None where they are not compared."""

    separated: str
    few: str
    control: str | None
    dense_few: str | None


def make_arms(
    name: str, plan: Plan, tuning: Recipe, trained: Trained, device: str, layers: Sequence[int] | None
) -> dict[str, TimedSampler]:
    """The samplers that are compared, the dense model at its usual number of steps first."""

    def load(model: str) -> Any:
        return models.load(model, device)

    dense, tuned = load(name), load(trained.separated)
    untrained = build(tuning, device)
    module_of(untrained).eval().requires_grad_(False)
    usual, cut = Sampling(STEPS), plan if layers is None else layers[0]
    arms = {
        f"dense, {STEPS} steps": TimedSampler(dense, usual),
        f"fetched once, {STEPS} steps": TimedSampler(fetch_once(dense), usual),
        f"fetched once, planned cut, {STEPS} steps": TimedSampler(fetch_once(dense, cut), usual),
        f"separated, not trained, {STEPS} steps": TimedSampler(untrained, usual),
        f"separated, fine-tuned, {STEPS} steps": TimedSampler(tuned, usual),
    }
    if trained.control is not None:
        arms[f"dense, trained on, {STEPS} steps"] = TimedSampler(load(trained.control), usual)
    lines = [("dense", dense, False), ("separated, distilled", load(trained.few), True)]
    if trained.dense_few is not None:
        lines.append(("dense, distilled", load(trained.dense_few), True))
    for kind, model, renoise in lines:
        for steps in FEWER:
            arms[f"{kind}, {steps} step{'s' * (steps > 1)}"] = TimedSampler(
                model, Sampling(steps, renoise=renoise)
            )
    return arms
