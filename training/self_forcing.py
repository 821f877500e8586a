"""Distribution matching by self-forcing: a few-step student learns on the clips that it generates itself.

    train(recipe("split-tiles-dmd"), Path("runs/train/split-tiles-dmd"), device="cpu")

The causal teacher is the real score. The fake score begins as its copy and is trained by flow matching on the
student's clips, several steps for each one of the student (Yin et al. 2024, DMD2; Huang et al. 2025,
Self-Forcing). Both see the generated clip as its own clean past.
"""

import copy
import time
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from framelens import videos
from framelens.diffusion.consistency import predict_clean
from framelens.diffusion.contract import CausalDiffuser, traits
from framelens.diffusion.distribution_matching import matching_loss, sample_levels
from framelens.diffusion.loss import flow_matching_loss, velocity_error
from framelens.diffusion.sampler import OnPass, fresh_noise, ignore_pass, rollout
from framelens.diffusion.schedule import Sampling, add_noise
from framelens.models.loading.ranks import Ranks
from framelens.training.distil import load_teacher
from framelens.training.recipes import Recipe
from framelens.training.self_rollout import roll_out_to_exit
from framelens.training.shares import average_gradients
from framelens.training.tensors import to_tensors
from framelens.training.trainer import ALL, ALONE, Training

VALIDATION_CLIPS = 16
VALIDATED_LEVELS = (0.9, 0.7, 0.5, 0.3, 0.1)


class Draw(NamedTuple):
    """What one turn of a step draws, for the clips of a share: b clips of f frames."""

    given: Tensor
    """The first frames [b g c h w]."""
    cond: Tensor | None
    exit_step: int
    """The denoising step that is trained, the same for all chunks and clips."""
    noise: Tensor
    """From which the clip is generated [b f c h w]."""
    seed: int
    """Of the fresh noise between denoising steps."""
    sigma: Tensor
    """The noise level at which the generated clip is compared [b f], one for each clip."""
    score_noise: Tensor
    """With which it is noised then [b f c h w]."""
    rows: slice


class SelfForcing(Training):
    """A training on the student's own clips; ValueError for an unsuitable teacher or number of frames."""

    def __init__(self, recipe: Recipe, model: CausalDiffuser, device: str, ranks: Ranks = ALONE):
        super().__init__(recipe, model, device, ranks)
        self.teacher = load_teacher(recipe, model, device)
        _check_chunks(recipe, model, self.teacher)
        self.fake: Any = copy.deepcopy(self.teacher).requires_grad_(True)
        self.fake_optimizer = torch.optim.AdamW(
            self.fake.parameters(),
            lr=recipe.fake_learning_rate,
            betas=(recipe.beta1, recipe.beta2),
            weight_decay=recipe.weight_decay,
        )
        self.companions = {"fake": self.fake, "fake_optimizer": self.fake_optimizer}
        self.sampling = Sampling(recipe.student_steps, renoise=True)
        said = traits(self.teacher).sampling
        self.shift = 1.0 if said is None else said.shift
        self.measured: dict[str, float] = {}
        """What the newest validation found beside the loss."""

    def advance(self) -> float:
        """Makes the steps of the fake score, then one of the student; the student's loss before it."""
        began = time.perf_counter()
        for turn in range(self.recipe.fake_steps):
            self.advance_fake(turn)
        self.seconds += time.perf_counter() - began
        return super().advance()

    def advance_fake(self, turn: int) -> float:
        """Makes one step of the fake score on new clips of the student; the loss before it, of all ranks."""
        loss = self._over_ranks([self._backpropagate_fake(rows, turn) for rows in self.shares])
        self._require_finite(loss, "fake score's loss")
        average_gradients(self.fake, self.ranks)
        nn.utils.clip_grad_norm_(self.fake.parameters(), self.recipe.clip)
        self.fake_optimizer.step()
        self.fake_optimizer.zero_grad(set_to_none=True)
        return loss

    def _backpropagate_fake(self, rows: slice, turn: int) -> Tensor:
        drawn = self.draw_turn(rows, turn)
        with self.forward_pass(rows):
            with torch.no_grad():
                clip = self.generate(drawn)
            by_frame = flow_matching_loss(self.fake, clip, drawn.score_noise, drawn.sigma, drawn.cond)
            loss = by_frame[:, self.recipe.given_frames :].mean()
        (loss / len(self.shares)).backward()
        return loss.detach()

    def compute_loss(self, rows: slice = ALL) -> Tensor:
        """The matching loss of this step, or of these clips of it; what is drawn depends on (seed, step)."""
        drawn, made = self.draw_turn(rows, self.recipe.fake_steps), slice(self.recipe.given_frames, None)
        with self.forward_pass(rows):
            clip = self.generate(drawn)
            with torch.no_grad():
                noisy = add_noise(clip.detach(), drawn.score_noise, drawn.sigma)
                fake, real = (
                    predict_clean(self._velocity(score, clip.detach(), drawn.cond), noisy, drawn.sigma)
                    for score in (self.fake, self.teacher)
                )
            return matching_loss(clip[:, made], fake[:, made], real[:, made]).mean()

    def _velocity(self, score: Any, clip: Tensor, cond: Tensor | None) -> Any:
        return lambda noisy, sigma: score.teacher_forced(clip, noisy, sigma, cond)

    def draw_turn(self, rows: slice, turn: int) -> Draw:
        """What is drawn for these clips in a turn of this step: one of the fake score's, or the student's."""
        clean, given = to_tensors(self.read_clips(rows), self.device)
        seed, recipe = self._seed * 1009 + turn, self.recipe
        generator, whole = torch.Generator(self.device).manual_seed(seed), (recipe.batch, *clean.shape[1:])
        exit_step = int(torch.randint(recipe.student_steps, (), generator=generator, device=self.device))
        noise, score_noise = (
            torch.randn(whole, generator=generator, device=self.device)[rows] for _ in range(2)
        )
        level = sample_levels(recipe.batch, self.shift, generator)[rows]
        cond = self.draw_conditions(given, generator, recipe.batch, rows)
        sigma = level[:, None].expand(-1, clean.shape[1])
        first = clean[:, : recipe.given_frames]
        return Draw(first, cond, exit_step, noise, seed, sigma, score_noise, rows)

    def generate(self, drawn: Draw, on_pass: OnPass = ignore_pass) -> Tensor:
        """The student's clip [b f c h w], whose gradient is that of the exit step alone."""

        def fresh(x: Tensor, frame: int, step: int) -> Tensor:
            whole = x.new_empty(self.recipe.batch, *x.shape[1:])
            return fresh_noise(whole, drawn.seed, frame, step)[drawn.rows]

        return roll_out_to_exit(
            self.model,
            drawn.noise,
            self.sampling.grid,
            drawn.exit_step,
            fresh,
            drawn.cond,
            drawn.given,
            on_pass,
        )

    def validate(self) -> None:
        """Appends the scores' distance, the fake score's loss and the saturation to the log.

        ValueError where the loss is not finite, or the saturation has risen for long enough to stop.
        """
        super().validate()
        self.log[-1] |= self.measured
        require_unsaturated(self.log, self.recipe)

    @torch.no_grad()
    def measure_validation(self) -> dict[Any, float]:
        """Squared distance of both scores' clean frames on held-out clips of the student, by noise level.

        `measured` is then the fake score's loss and the saturation: the standard deviation of generated
        frames over that of the true ones.
        """
        seeds = [videos.VALIDATION_SEED + row for row in range(VALIDATION_CLIPS)]
        truth, cond = to_tensors(self.source.clips(seeds, self.recipe.frames), self.device)
        noise, other = (
            torch.randn(truth.shape, generator=torch.Generator().manual_seed(seed)).to(self.device)
            for seed in range(2)
        )
        made = slice(self.recipe.given_frames, None)
        given = truth[:, : self.recipe.given_frames]
        clip = rollout(self.model, noise, self.sampling.grid, cond, given, renoise=0).float()
        found, errors = {}, []
        for level in VALIDATED_LEVELS:
            sigma = torch.full(truth.shape[:2], level, device=self.device)
            noisy = add_noise(clip, other, sigma)
            fake, real = (
                self._velocity(score, clip, cond)(noisy, sigma).float() for score in (self.fake, self.teacher)
            )
            found[level] = float((level * (fake - real))[:, made].square().mean())
            errors.append(velocity_error(lambda *_, fake=fake: fake, clip, other, sigma)[:, made].mean())
        contrast = clip[:, made].std(dim=(1, 2, 3, 4)).mean() / truth[:, made].std(dim=(1, 2, 3, 4)).mean()
        self.measured = {"fake_loss": float(torch.stack(errors).mean()), "saturation": float(contrast)}
        return found


def require_unsaturated(log: list[dict[str, Any]], recipe: Recipe) -> None:
    """ValueError where the saturation of the newest validations is higher than at first, each time.

    The number of validations is `saturation_patience`, the rise that is allowed `saturation_rise`.
    """
    first, newest = log[0], log[1:][-recipe.saturation_patience :]
    is_higher = [row["saturation"] - first["saturation"] > recipe.saturation_rise for row in newest]
    if len(newest) < recipe.saturation_patience or not all(is_higher):
        return
    before = log[-len(newest) - 1]["step"]
    raise ValueError(
        f"the saturation of generated frames rose from {first['saturation']:.3f} to "
        f"{newest[-1]['saturation']:.3f}, by more than saturation_rise={recipe.saturation_rise} at "
        f"{len(newest)} validations in a row; what was saved is kept, and the checkpoint of step {before} is "
        "the last one before it: take that, or lower the learning rate (--set learning_rate=...), with "
        "another --out"
    )


def _check_chunks(recipe: Recipe, *models: CausalDiffuser) -> None:
    """ValueError where the clips or their given frames are not whole chunks of a model."""
    for model in models:
        chunk = model.geometry.frames_per_chunk
        if recipe.frames % chunk or recipe.given_frames % chunk:
            raise ValueError(
                f"frames={recipe.frames} and given_frames={recipe.given_frames} must be whole chunks of "
                f"{chunk} frames"
            )
