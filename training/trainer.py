"""The training loop: one frozen recipe in, one folder out, the same weights however often it was stopped.

    train(recipe("dense-tiles"), Path("runs/train/dense-tiles"), device="cpu")

Every step draws its clips and its noise from (seed, step), so nothing but weights, averages and optimiser
state has to survive an interruption.
"""

import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from framelens import models, videos
from framelens.diffusion.loss import flow_matching_loss
from framelens.diffusion.schedule import TrainingDensity, noised
from framelens.models.dense import Dense
from framelens.models.scd import SCD
from framelens.models.variants.cut import frame_diagonal
from framelens.models.variants.recomposed import recompose
from framelens.training._optimizers import optimizers
from framelens.training.averaging import averaged_weights
from framelens.training.recipes import Recipe
from framelens.training.state import TrainingFolder
from framelens.videos import worlds

VALIDATION_CLIPS = 24
VALIDATION_SIGMAS = (0.95, 0.8, 0.6, 0.4, 0.2, 0.05)


def build(recipe: Recipe) -> Any:
    """The recipe's network, initialised from its seed and shaped for its videos."""
    source, network = worlds.load(recipe.videos), models.network(recipe.network)
    channels, height, width = source.SHAPE
    shape = {"channels": channels, "height": height, "width": width, "conditions": source.CONDITIONS}
    try:
        config = network.config(recipe.preset, **shape | recipe.architecture)
    except TypeError:
        known = [field.name for field in fields(network.Config)]
        unknown = ", ".join(name for name in recipe.architecture if name not in known)
        raise ValueError(
            f"neither a recipe nor a {recipe.network} network has {unknown}; networks have {', '.join(known)}"
        ) from None
    torch.manual_seed(recipe.seed)
    model = network.build(config)
    if recipe.initial:
        _start_from(model, recipe)
    for part in model.modules():
        if hasattr(part, "recompute"):
            part.recompute = recipe.recompute
    return model


def _start_from(model: Any, recipe: Recipe) -> None:
    """Gives the model the weights of the recipe's initial one, a separated one those of a dense network.

    ValueError where they have other shapes.
    """
    initial = models.load(recipe.initial)
    if isinstance(model, SCD) and isinstance(initial, Dense):
        recompose(model, initial)
        return
    weights = initial.state_dict()
    own = model.state_dict()
    other = [name for name in own.keys() | weights if name not in own or name not in weights]
    other += [name for name in own.keys() & weights if own[name].shape != weights[name].shape]
    if other:
        raise ValueError(
            f"{recipe.initial} is another network than the recipe's: {sorted(other)[:10]} differ"
        )
    model.load_state_dict(weights)


def train(recipe: Recipe, out: Path, device: str, progress: bool = True) -> Path:
    """The path of the trained model's weights, written with checkpoints, log and samples into `out`."""
    folder = TrainingFolder(out, recipe)
    model = build(recipe).to(device)
    run = Run(recipe, model, device)
    folder.resume(run)
    with folder.stop_politely() as stopping:
        with tqdm(total=recipe.steps, initial=run.step, unit="step", disable=not progress) as bar:
            while run.step < recipe.steps:
                folder.at_step(run)
                loss = run.advance()
                bar.update()
                bar.set_postfix(loss=f"{loss:.4f}", validation=run.last_validation())
                if stopping():
                    folder.save_state(run)
                    raise KeyboardInterrupt
    return folder.finish(run)


class Run:
    """Weights, their average, optimisers and log at one step of a training."""

    def __init__(self, recipe: Recipe, model: Any, device: str):
        self.recipe, self.model, self.device = recipe, model, torch.device(device)
        self.step, self.seconds, self.log = 0, 0.0, []
        self.average = {name: weight.detach().clone() for name, weight in model.state_dict().items()}
        self.optimizers = optimizers(model, recipe)
        self.source = worlds.load(recipe.videos)
        self.density = TrainingDensity(uniform_share=recipe.uniform_share)

    def advance(self) -> float:
        """One optimiser step; the loss before it."""
        began = time.perf_counter()
        self._set_learning_rate()
        loss = self._loss()
        if not torch.isfinite(loss):
            raise ValueError(
                f"the training loss is {loss.item()} at step {self.step}; lower the learning rate"
            )
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self._average()
        self.seconds += time.perf_counter() - began
        return loss.item()

    def validate(self) -> None:
        """Appends the averaged weights' loss on held-out clips to the log, by noise level and in the mean."""
        with averaged_weights(self.model, self.average), self._cut():
            by_sigma = validation_loss(self.model, self.source, self.recipe.frames, self.device)
        row = {
            "step": self.step,
            "seconds": round(self.seconds, 1),
            "loss": sum(by_sigma.values()) / len(by_sigma),
        }
        self.log.append(row | {f"loss_sigma_{sigma}": loss for sigma, loss in by_sigma.items()})

    def last_validation(self) -> str:
        return f"{self.log[-1]['loss']:.4f}" if self.log else "-"

    def _loss(self) -> Tensor:
        first = self.recipe.seed * 10_000_019 + self.step * self.recipe.batch
        seeds = [(first + clip) % videos.VALIDATION_SEED for clip in range(self.recipe.batch)]
        clips = self.source.clips(seeds, self.recipe.frames)
        clean = torch.from_numpy(clips.video).to(self.device)
        seed = self.recipe.seed * 1_000_003 + self.step
        generator = torch.Generator(self.device).manual_seed(seed)
        batch, frames = clean.shape[0], clean.shape[1] * self.recipe.noise_draws
        sigma = self.density.sample((batch, frames), generator)
        noise = torch.randn(batch, frames, *clean.shape[2:], generator=generator, device=self.device)
        seen = _history(clean, noise, sigma, self.recipe.clean_history, generator)
        torch.manual_seed(seed)  # for noise that a network adds by itself
        cond = self._conditions(clips, generator)
        with _autocast(self.recipe, self.device), self._cut():
            return flow_matching_loss(self.model, clean, noise, sigma, cond, seen).mean()

    def _cut(self) -> AbstractContextManager:
        """The layers cut off from the past that the recipe asks for."""
        if self.recipe.cut_from is None:
            return nullcontext()
        if not hasattr(self.model, "blocks"):
            raise ValueError(f"cut_from is for dense networks, not for {self.recipe.network}")
        return frame_diagonal(self.model, range(self.recipe.cut_from, self.model.geometry.layers))

    def _conditions(self, clips: videos.Clips, generator: torch.Generator) -> Tensor | None:
        if clips.actions is None:
            return None
        actions = torch.from_numpy(clips.actions).to(self.device)
        dropped = (
            torch.rand(len(actions), generator=generator, device=self.device) < self.recipe.condition_dropout
        )
        return actions.masked_fill(dropped[:, None], self.model.null_condition)

    def _set_learning_rate(self) -> None:
        recipe, step = self.recipe, self.step
        left = (recipe.steps - step) / max(1, recipe.decay_share * recipe.steps)
        factor = min(1.0, (step + 1) / recipe.warmup, max(left, 0.02))
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = factor * group["peak"]

    @torch.no_grad()
    def _average(self) -> None:
        decay = self.recipe.ema
        if self.recipe.ema_warmup:
            decay = min(decay, (1 + self.step) / (10 + self.step))
        weights = self.model.state_dict()
        for name, average in self.average.items():
            average.lerp_(weights[name], 1 - decay)


def _history(
    clean: Tensor, noise: Tensor, sigma: Tensor, clean_share: float, generator: torch.Generator
) -> Tensor:
    """The frames that later ones see: clean, or that share of them and the others at their noise level."""
    if clean_share == 1:
        return clean
    frames = clean.shape[1]
    is_clean = torch.rand(sigma[:, :frames].shape, generator=generator, device=clean.device) < clean_share
    noisy = noised(clean, noise[:, :frames], sigma[:, :frames])
    return torch.where(is_clean[..., None, None, None], clean, noisy)


def _autocast(recipe: Recipe, device: torch.device):
    if recipe.autocast == "float32":
        return nullcontext()
    return torch.autocast(device.type, getattr(torch, recipe.autocast))


@torch.no_grad()
def validation_loss(model, source, frames: int, device, clips: int = VALIDATION_CLIPS) -> dict[float, float]:
    """The mean velocity error on held-out clips at each of six noise levels, the same noise every time."""
    levels = torch.tensor(VALIDATION_SIGMAS, device=device)
    sums, counts = torch.zeros(len(levels), dtype=torch.float64), torch.zeros(len(levels))
    for first in range(0, clips, 8):
        rows = range(first, min(first + 8, clips))
        batch = source.clips([videos.VALIDATION_SEED + row for row in rows], frames)
        clean = torch.from_numpy(batch.video).to(device)
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(first)).to(device)
        which = (torch.arange(len(rows))[:, None] + torch.arange(frames)) % len(levels)
        cond = None if batch.actions is None else torch.from_numpy(batch.actions).to(device)
        loss = flow_matching_loss(model, clean, noise, levels[which.to(device)], cond).double().cpu()
        sums.index_add_(0, which.flatten(), loss.flatten())
        counts.index_add_(0, which.flatten(), torch.ones(which.numel()))
    return dict(zip(VALIDATION_SIGMAS, (sums / counts).tolist(), strict=True))
