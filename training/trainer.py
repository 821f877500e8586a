"""One training: its weights, their average, optimisers and log, advanced step by step.

Every step draws its clips and its noise from (seed, step), so a training resumes from its weights, their
average and the state of its optimisers alone.
"""

import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from framelens import videos
from framelens.diffusion.contract import CausalDiffuser, traits
from framelens.diffusion.loss import flow_matching_loss
from framelens.diffusion.schedule import Sampling, TrainingDensity, add_noise
from framelens.models.loading.ranks import Ranks
from framelens.models.variants.cut import cut_teacher_forced, layers_from
from framelens.training._optimizers import make_optimizers
from framelens.training.adapters import trained_state
from framelens.training.averaging import averaged_weights
from framelens.training.draws import InTwoParts, backpropagate_draws
from framelens.training.recipes import Recipe
from framelens.training.shares import NoiseOfRows, average_gradients, shares
from framelens.training.source import open_source
from framelens.training.tensors import to_tensors

ALONE, ALL = Ranks(), slice(None)
VALIDATION_CLIPS = 24
VALIDATION_SIGMAS = (0.95, 0.8, 0.6, 0.4, 0.2, 0.05)


class Training:
    """One step of a training: its weights, their average, optimisers and log."""

    def __init__(self, recipe: Recipe, model: CausalDiffuser, device: str, ranks: Ranks = ALONE):
        self.recipe, self.device, self.ranks = recipe, torch.device(device), ranks
        self.shares = shares(recipe, ranks)
        self.model: Any = model
        if recipe.draws_apart and not isinstance(model, InTwoParts):
            raise ValueError(f"draws_apart=true is for separated networks, not for a {recipe.network} one")
        self.step, self.seconds, self.log = 0, 0.0, []
        self.average = {name: weight.detach().clone() for name, weight in trained_state(self.model).items()}
        self.optimizers = make_optimizers(self.model, recipe)
        self.companions: dict[str, Any] = {}
        """What is trained beside the model and saved with it, by name; each has a state_dict."""
        self.source = open_source(recipe.videos)
        self.density = TrainingDensity(uniform_share=recipe.uniform_share)
        self.sampling = Sampling(25)
        """How samples are drawn while it is trained."""

    def advance(self) -> float:
        """Makes one optimiser step; the loss before it, of all ranks. ValueError where that is not finite."""
        began = time.perf_counter()
        self._set_learning_rate()
        loss = self._over_ranks([self.backpropagate(rows) for rows in self.shares])
        self._require_finite(loss, "training loss")
        average_gradients(self.model, self.ranks)
        nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self._update_average()
        self.seconds += time.perf_counter() - began
        return loss

    def backpropagate(self, rows: slice) -> Tensor:
        """Adds the gradient of these clips' share of the loss to the weights' gradients; their loss."""
        if self.recipe.draws_apart:
            forward_pass, weight = partial(self.forward_pass, rows), 1 / len(self.shares)
            return backpropagate_draws(self.model, *self.draw(rows), forward_pass, weight)
        loss = self.compute_loss(rows)
        (loss / len(self.shares)).backward()
        return loss.detach()

    def _over_ranks(self, losses: list[Tensor]) -> float:
        """The mean loss of the passes of all ranks."""
        mean = torch.stack(losses).mean()
        self.ranks.average([mean])
        return mean.item()

    @torch.no_grad()
    def require_sound(self) -> None:
        """ValueError unless the loss of the coming step is finite. No random number is used up."""
        gpus = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(gpus):
            loss = self._over_ranks([self.compute_loss(rows) for rows in self.shares])
        self._require_finite(loss, "training loss")

    def _require_finite(self, loss: float, what: str) -> None:
        if not math.isfinite(loss):
            raise ValueError(
                f"the {what} is {loss} at step {self.step}; what was saved before it is kept: lower the "
                "learning rate (--set learning_rate=... or muon_learning_rate=...), with another --out"
            )

    def validate(self) -> None:
        """Appends the loss of the averaged weights on held-out clips to the log, in the mean and by sigma.

        ValueError where it is not finite.
        """
        with averaged_weights(self.model, self.average):
            by_sigma = self.measure_validation()
        row = {
            "step": self.step,
            "seconds": round(self.seconds, 1),
            "loss": sum(by_sigma.values()) / len(by_sigma),
        }
        self._require_finite(row["loss"], "validation loss")
        self.log.append(row | {f"loss_sigma_{sigma}": loss for sigma, loss in by_sigma.items()})

    def measure_validation(self) -> dict[Any, float]:
        """The model's loss on held-out clips by noise level."""
        with self._cut_layers():
            return measure_validation_loss(self.model, self.source, self.recipe.frames, self.device)

    def format_validation(self) -> str:
        """The newest validation loss as text, "-" before the first."""
        return f"{self.log[-1]['loss']:.4f}" if self.log else "-"

    def compute_loss(self, rows: slice = ALL) -> Tensor:
        """The loss of this step, or of these clips of it; what is drawn depends on (seed, step)."""
        drawn = self.draw(rows)
        with self.forward_pass(rows), self._cut_layers():
            return flow_matching_loss(self.model, *drawn).mean()

    def draw(self, rows: slice) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor]:
        """Clean frames, noise, noise levels, conditions and history of these clips of the step."""
        clean, given = to_tensors(self.read_clips(rows), self.device)
        generator = torch.Generator(self.device).manual_seed(self._seed)
        batch, frames = self.recipe.batch, clean.shape[1] * self.recipe.noise_draws
        sigma = self.density.sample((batch, frames), generator)
        noise = torch.randn(batch, frames, *clean.shape[2:], generator=generator, device=self.device)
        history = mix_history(clean, noise, sigma, self.recipe.clean_history, generator, rows)
        cond = self.draw_conditions(given, generator, batch, rows)
        return clean, noise[rows], sigma[rows], cond, history

    @property
    def _seed(self) -> int:
        return self.recipe.seed * 1_000_003 + self.step

    @contextmanager
    def forward_pass(self, rows: slice) -> Iterator[None]:
        """Within it, the model computes as the recipe says; noise that it adds is that of these clips."""
        torch.manual_seed(self._seed)
        whole = self.recipe.batch == len(range(self.recipe.batch)[rows])
        own = nullcontext() if whole else NoiseOfRows(rows, self.recipe.batch)
        with autocast(self.recipe, self.device), own:
            yield

    def read_clips(self, rows: slice = ALL) -> videos.Clips:
        """The clips of this step, or these of them; none is one for validation."""
        first = self.recipe.seed * 10_000_019 + self.step * self.recipe.batch
        seeds = [(first + clip) % videos.VALIDATION_SEED for clip in range(self.recipe.batch)[rows]]
        return self.source.clips(seeds, self.recipe.frames)

    def _cut_layers(self) -> AbstractContextManager:
        """Within it, the layers from the recipe's `cut_from` on are cut off from the past."""
        if self.recipe.cut_from is None:
            return nullcontext()
        return cut_teacher_forced(self.model, layers_from(self.model, self.recipe.cut_from))

    def draw_conditions(
        self, given: Tensor | None, generator: torch.Generator, batch: int | None = None, rows: slice = ALL
    ) -> Tensor | None:
        """The actions or prompts of the clips, some replaced by the null condition; None for None.

        `given` holds these rows of a batch of that size, by default the whole one.
        """
        if given is None:
            return None
        draws = torch.rand(batch or len(given), generator=generator, device=self.device)[rows]
        null = traits(self.model).null_condition
        if null is None:
            return given
        if isinstance(null, Tensor):  # a shorter prompt is padded with zeros, as the network itself does
            given = F.pad(given, (0, 0, 0, max(0, len(null) - given.shape[1])))
        is_dropped = (draws < self.recipe.condition_dropout).reshape(-1, *[1] * (given.ndim - 1))
        return torch.where(is_dropped, torch.as_tensor(null, dtype=given.dtype, device=self.device), given)

    def _set_learning_rate(self) -> None:
        recipe, step = self.recipe, self.step
        left = (recipe.steps - step) / max(1, recipe.decay_share * recipe.steps)
        factor = min(1.0, (step + 1) / recipe.warmup, max(left, 0.02))
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = factor * group["peak"]

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = self.recipe.ema
        if self.recipe.ema_warmup:
            decay = min(decay, (1 + self.step) / (10 + self.step))
        weights = self.model.state_dict()
        for name, average in self.average.items():
            average.lerp_(weights[name], 1 - decay)


def mix_history(
    clean: Tensor,
    noise: Tensor,
    sigma: Tensor,
    clean_share: float,
    generator: torch.Generator,
    rows: slice = ALL,
) -> Tensor:
    """The frames that later frames see: that share of them clean, the others at their noise level.

    `clean` holds these rows of the batch, noise and sigma all of them.
    """
    if clean_share == 1:
        return clean
    noise, sigma = noise[:, : clean.shape[1]], sigma[:, : clean.shape[1]]
    is_clean = (torch.rand(sigma.shape, generator=generator, device=clean.device) < clean_share)[rows]
    noisy = add_noise(clean, noise[rows], sigma[rows])
    return torch.where(is_clean[..., None, None, None], clean, noisy)


def autocast(recipe: Recipe, device: torch.device) -> AbstractContextManager:
    """Within it, the forward pass computes in the recipe's arithmetic."""
    if recipe.autocast == "float32":
        return nullcontext()
    return torch.autocast(device.type, getattr(torch, recipe.autocast))


@torch.no_grad()
def measure_validation_loss(
    model: CausalDiffuser, source: Any, frames: int, device: torch.device, clips: int = VALIDATION_CLIPS
) -> dict[float, float]:
    """Squared velocity error on held-out clips by noise level, a mean over pixels and frames; fixed noise."""
    levels = torch.tensor(VALIDATION_SIGMAS, device=device)
    sums, counts = torch.zeros(len(levels), dtype=torch.float64), torch.zeros(len(levels))
    for first in range(0, clips, 8):
        rows = range(first, min(first + 8, clips))
        batch = source.clips([videos.VALIDATION_SEED + row for row in rows], frames)
        clean, cond = to_tensors(batch, device)
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(first)).to(device)
        which = (torch.arange(len(rows))[:, None] + torch.arange(frames)) % len(levels)
        loss = flow_matching_loss(model, clean, noise, levels[which.to(device)], cond).double().cpu()
        sums.index_add_(0, which.flatten(), loss.flatten())
        counts.index_add_(0, which.flatten(), torch.ones(which.numel()))
    return dict(zip(VALIDATION_SIGMAS, (sums / counts).tolist(), strict=True))
