"""The training loop: one recipe in, one folder out, the same weights with and without interruptions.

train(recipe("dense-tiles"), Path("runs/train/dense-tiles"), device="cpu")
"""

from contextlib import nullcontext
from pathlib import Path

from framelens.diffusion.contract import module_of
from framelens.models.loading.ranks import Ranks
from framelens.records.lock import hold_folder, remove_stale_files
from framelens.records.progress import progress_bar
from framelens.training.build import build
from framelens.training.distil import Distillation
from framelens.training.recipes import Recipe
from framelens.training.self_forcing import SelfForcing
from framelens.training.sharding import shard
from framelens.training.state import TrainingFolder, finish_step_on_interrupt
from framelens.training.trainer import ALONE, Training


def train(
    recipe: Recipe,
    out: Path,
    device: str,
    progress: bool = True,
    ranks: Ranks = ALONE,
    fsdp: bool = False,
) -> Path:
    """The path of the trained model's weights, written with checkpoints, log and samples into `out`.

    A finished training is left as it is. Several ranks train one model: each takes its share of the clips of
    a step, and the first one writes; with `fsdp` each keeps its share of the weights, too. ValueError where
    `out` has a training of another recipe, or the recipe's network cannot be built; OSError where a rank is
    gone.
    """
    folder = TrainingFolder(out, recipe, writes=ranks.is_first)
    if folder.is_finished():
        return folder.weights
    training = _begin(recipe, device, ranks, fsdp)
    with hold_folder(out, "--out gives another folder") if ranks.is_first else nullcontext():
        if ranks.is_first:
            remove_stale_files(out)
        folder.resume(training)
        ranks.broadcast(None)  # nothing is written before all have read it
        _advance(training, folder, progress)
        return folder.finish(training)


def _advance(training: Training, folder: TrainingFolder, progress: bool) -> None:
    """Trains to the recipe's last step and writes what is due; KeyboardInterrupt after Ctrl-C or SIGTERM."""
    steps, progress = training.recipe.steps, progress and training.ranks.is_first
    with finish_step_on_interrupt() as is_interrupted:
        with progress_bar(total=steps, initial=training.step, unit="step", is_shown=progress) as bar:
            while training.step < steps:
                folder.write_what_is_due(training)
                loss = training.advance()
                bar.update()
                bar.set_postfix(loss=f"{loss:.4f}", validation=training.format_validation())
                if training.ranks.any(is_interrupted(), training.device):
                    training.require_sound()
                    folder.save_state(training)
                    raise KeyboardInterrupt


def _begin(recipe: Recipe, device: str, ranks: Ranks, fsdp: bool) -> Training:
    """The training before its first step; with a teacher, a distillation."""
    kind = {"consistency": Distillation, "dmd": SelfForcing}[recipe.objective] if recipe.teacher else Training
    model = build(recipe, device)
    if fsdp and recipe.teacher:
        raise ValueError(
            "--fsdp is for training on videos: a distillation keeps whole networks beside its own"
        )
    if fsdp:
        shard(module_of(model), ranks, device)
    return kind(recipe, model, device, ranks)
