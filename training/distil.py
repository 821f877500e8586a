"""Distillation to few steps: a student that predicts the clean frame from any noise level of its teacher.

    train(recipe("split-tiles-few"), Path("runs/train/split-tiles-few"), device="cpu")

Causal consistency distillation with teacher forcing: every frame is denoised beside its clean past. Of a
separated model the decoder alone can be distilled (train_only="decoder"): the encoder runs once per step and
its features serve student, target and teacher.
"""

import copy
from typing import Any

import torch
from torch import Tensor

from framelens import models, videos
from framelens.diffusion.consistency import Velocity, consistency_loss
from framelens.diffusion.contract import CausalDiffuser, module_of, traits
from framelens.diffusion.schedule import Sampling, sigma_grid
from framelens.models.loading.ranks import Ranks
from framelens.training.averaging import load_trained
from framelens.training.draws import InTwoParts
from framelens.training.recipes import Recipe
from framelens.training.tensors import to_tensors
from framelens.training.trainer import ALL, ALONE, Training

VALIDATION_CLIPS = 24
VALIDATED_LEVELS = 6


class Distillation(Training):
    """A training whose loss is the distance to its teacher's path; ValueError for an unsuitable teacher."""

    def __init__(self, recipe: Recipe, model: CausalDiffuser, device: str, ranks: Ranks = ALONE):
        super().__init__(recipe, model, device, ranks)
        self.teacher = load_teacher(recipe, model, device)
        self.target: Any = copy.deepcopy(module_of(model)).eval().requires_grad_(False)
        self.grid = sigma_grid(recipe.levels).to(self.device)
        self.sampling = Sampling(recipe.student_steps, renoise=True)

    def compute_loss(self, rows: slice = ALL) -> Tensor:
        """The loss of this step, or of these clips of it; what is drawn depends on (seed, step)."""
        clean, given = to_tensors(self.read_clips(rows), self.device)
        generator, batch = torch.Generator(self.device).manual_seed(self._seed), self.recipe.batch
        level = torch.randint(self.recipe.levels, (batch,), generator=generator, device=self.device)[rows]
        noise = torch.randn(batch, *clean.shape[1:], generator=generator, device=self.device)[rows]
        cond = self.draw_conditions(given, generator, batch, rows)
        load_trained(self.target, self.average)
        with self.forward_pass(rows):
            return self._loss(self.model, clean, noise, level, cond).mean()

    def _loss(
        self, student: CausalDiffuser, clean: Tensor, noise: Tensor, level: Tensor, cond: Tensor | None
    ) -> Tensor:
        if self.recipe.train_only == "decoder":
            with torch.no_grad():
                features = _require_parts(self.teacher).read_clip(clean, cond)

            def velocity(network: CausalDiffuser) -> Velocity:
                parts = _require_parts(network)
                return lambda noisy, sigma: parts.decode_clip(features, noisy, sigma, cond)
        else:

            def velocity(network: CausalDiffuser) -> Velocity:
                teacher_forced = traits(network).teacher_forced
                assert teacher_forced is not None  # the network is built and its teacher loaded only with it
                return lambda noisy, sigma: teacher_forced(clean, noisy, sigma, cond)

        networks = velocity(student), velocity(self.target), velocity(self.teacher)
        return consistency_loss(*networks, clean, noise, level, self.grid)

    @torch.no_grad()
    def measure_validation(self) -> dict[str, float]:
        """The loss on held-out clips at some levels of the grid; fixed noise."""
        places = torch.linspace(0, self.recipe.levels - 1, min(VALIDATED_LEVELS, self.recipe.levels)).long()
        clips = self.source.clips(
            [videos.VALIDATION_SEED + row for row in range(VALIDATION_CLIPS)], self.recipe.frames
        )
        clean, cond = to_tensors(clips, self.device)
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0)).to(self.device)
        load_trained(self.target, self.average)
        found = {}
        for place in places.tolist():
            level = torch.full((len(clean),), place, device=self.device)
            loss = self._loss(self.model, clean, noise, level, cond)
            found[f"{float(self.grid[place]):.2f}"] = float(loss.mean())
        return found


def _require_parts(network: CausalDiffuser) -> InTwoParts:
    if not isinstance(network, InTwoParts):
        raise ValueError(f"a {type(network).__name__} has no decoder to distil alone")
    return network


def _description(model: CausalDiffuser) -> dict[str, Any] | None:
    """Its configuration as plain values; None where it does not give one."""
    describe = traits(model).describe
    return describe() if describe else None


def load_teacher(recipe: Recipe, model: CausalDiffuser, device: str) -> Any:
    """The teacher, without gradients; ValueError where it cannot teach this student."""
    try:
        teacher = models.load(recipe.teacher, device)
    except (ValueError, OSError) as error:
        raise ValueError(f"teacher={recipe.teacher}: {error}") from None
    said = traits(teacher)
    if said.teacher_forced is None:
        raise ValueError(
            f"teacher={recipe.teacher} has no teacher_forced: only a causal network that is trained frame by "
            "frame can teach"
        )
    if said.sampling is not None and said.sampling.renoise:
        raise ValueError(f"teacher={recipe.teacher} is a few-step student itself; give the model it is of")
    if said.source.videos != recipe.videos:
        raise ValueError(f"teacher={recipe.teacher} knows {said.source.videos}, not {recipe.videos}")
    if recipe.train_only == "decoder":
        own, theirs = _description(model), _description(teacher)
        if not isinstance(teacher, InTwoParts) or own is None or own != theirs:
            raise ValueError(
                f"train_only=decoder needs a teacher of the student's own architecture, which "
                f"{recipe.teacher} does not have"
            )
    return module_of(teacher).eval().requires_grad_(False)
