"""Trainings that are compared: their logs, recipes and the scores of their kept checkpoints.

trainings = read_trainings([Path("runs/train/a"), Path("runs/train/b")])
trainings[0].log                    # a row for each validation: step, seconds, loss, loss_sigma_0.95, ...
trainings[0].scores                 # the networks of scores.json by step; empty without that file
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from framelens.records.damage import name_damage
from framelens.records.identity import describe_differences
from framelens.records.trainings import LOG, SCORES, WEIGHTS, find_checkpoints, read_training
from framelens.reports.score_table import ScoredNetwork, read_networks, require_scored_alike

SIGMA = "loss_sigma_"
OF_STUDENTS = ("teacher", "objective", "levels")
"""What decides the validation loss of a distillation beside its videos."""


@dataclass(frozen=True)
class LoggedTraining:
    """One training, finished or not, as its folder has it now."""

    folder: Path
    name: str
    log: pd.DataFrame
    recipe: Mapping[str, Any]
    scores: Mapping[int, ScoredNetwork]
    """The scores of kept checkpoints by step."""

    @property
    def sigmas(self) -> list[str]:
        """The noise levels of the validation, as the log spells them, from noise to clean."""
        return [name.removeprefix(SIGMA) for name in self.log.columns if name.startswith(SIGMA)]

    @property
    def step(self) -> int:
        """The last step with a validation."""
        return int(self.log["step"].iloc[-1])

    @cached_property
    def validation(self) -> dict[str, Any]:
        """What decides the validation loss; only such trainings stand in one figure that agree in it."""
        found = {name: self.recipe.get(name) for name in ("videos", "frames")}
        found["noise levels of the validation"] = ", ".join(self.sigmas)
        is_student = bool(self.recipe.get("teacher"))
        return found | {name: self.recipe.get(name) if is_student else None for name in OF_STUDENTS}


def read_trainings(folders: Sequence[Path]) -> list[LoggedTraining]:
    """The trainings. ValueError, in one line, for one given twice, damaged, or validated on other videos."""
    for index, folder in enumerate(folders):
        if folder.resolve() in [other.resolve() for other in folders[:index]]:
            raise ValueError(f"{folder} is given twice; give different trainings")
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        names = [str(folder) for folder in folders]
    trainings = [_read(folder, name) for folder, name in zip(folders, names, strict=True)]
    first = trainings[0]
    for other in trainings[1:]:
        if first.validation != other.validation:
            found = describe_differences(other.validation, first.validation)
            raise ValueError(
                f"{other.folder} was trained and validated with {found} as {first.folder}: curves "
                "stand in one figure where videos, frames and noise levels are the same"
            )
    require_scored_alike([network for training in trainings for network in training.scores.values()])
    return trainings


def _read(folder: Path, name: str) -> LoggedTraining:
    log, weights = folder / LOG, folder / WEIGHTS
    with name_damage(str(log), "continue the training, which writes it again"):
        held = pd.read_csv(log).astype({"step": int, "loss": float})
    if held.empty:
        raise ValueError(f"{log} has no row yet; a training writes the first one before its first step")
    newest = weights if weights.exists() else find_checkpoints(folder)[-1]
    recipe = read_training(newest)["recipe"]
    return LoggedTraining(folder, name, held, recipe, _read_scores(folder / SCORES, recipe))


def _read_scores(file: Path, recipe: Mapping[str, Any]) -> dict[int, ScoredNetwork]:
    """The scores by step; ValueError where they are of another training."""
    found = {}
    for network in read_networks([file]) if file.exists() else []:
        about = dict(network.training or {})
        step = about.pop("step", None)
        if step is None or about != recipe:
            raise ValueError(
                f"{file} has scores of another training: delete it, then framelens evaluate --checkpoints "
                f"{file.parent}"
            )
        found[step] = network
    return dict(sorted(found.items()))
