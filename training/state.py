"""The folder of a training: saved state, checkpoints, log, samples; every file appears whole or not at all.

out/state.pt  out/checkpoints/step-000200.safetensors  out/log.csv  out/samples/*.gif  out/model.safetensors
"""

import csv
import io
import json
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch

from framelens import videos
from framelens.diffusion.contract import traits
from framelens.diffusion.sampler import rollout
from framelens.models.loading.checkpoint import write
from framelens.models.loading.own import distinct_weights
from framelens.records import replace_file
from framelens.records.trainings import LOG, WEIGHTS, name_checkpoint, read_training
from framelens.training.adapters import merge, trained_state
from framelens.training.averaging import averaged_weights, load_trained
from framelens.training.recipes import Recipe
from framelens.training.sharding import gather, place_like, place_state
from framelens.training.tensors import to_tensors

DAMAGE = (RuntimeError, OSError, EOFError, ValueError, TypeError, LookupError, UnpicklingError)
"""What readers raise on files that are damaged or of another kind."""


class TrainingFolder:
    """The folder of one recipe's training; refuses a folder of another recipe. It appears with its files.

    Of several processes one writes (`writes`). All compute what is written: each may hold a part of it.
    """

    def __init__(self, out: Path, recipe: Recipe, writes: bool = True):
        self.out, self.recipe, self.writes = out, recipe, writes
        self.state, self.weights = out / "state.pt", out / WEIGHTS

    def is_finished(self) -> bool:
        """Whether the last step is done and its weights are written.

        ValueError where the folder is of another recipe, or what it holds cannot be read.
        """
        if self.state.exists():
            saved = self._read_state(mmap=True)
        elif self.weights.exists():
            saved = self._read_training()
        else:
            return False
        self._check_recipe(saved["recipe"])
        return saved["step"] == self.recipe.steps and self.weights.exists()

    def resume(self, training: Any) -> None:
        """Puts the newest saved state into the training, if there is one."""
        if not self.state.exists():
            return
        saved = self._read_state()
        self._check_recipe(saved["recipe"])
        training.step, training.seconds, training.log = saved["step"], saved["seconds"], saved["log"]
        own = trained_state(training.model)
        load_trained(training.model, place_like(saved["model"], own))
        training.average = place_like(saved["average"], own)
        for optimizer, state in zip(training.optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(place_state(state, optimizer))
        for name, companion in training.companions.items():
            companion.load_state_dict(saved["companions"][name])

    def _check_recipe(self, saved: Mapping[str, Any]) -> None:
        """ValueError, which names the first difference, where the saved recipe is another one."""
        asked = json.loads(json.dumps(asdict(self.recipe)))  # a tuple comes back from a file as a list
        for name, old in json.loads(json.dumps(saved)).items():
            if asked.get(name) != old:
                raise ValueError(
                    f"{self.out} was trained with {name}={old}, not {asked.get(name)}; choose another --out "
                    "or delete it"
                )

    def _read_state(self, mmap: bool = False) -> dict[str, Any]:
        try:
            saved = torch.load(self.state, map_location="cpu", weights_only=True, mmap=mmap)
            return saved | {"recipe": dict(saved["recipe"])}
        except DAMAGE as error:
            raise ValueError(
                f"{self.state} cannot be read ({type(error).__name__}); delete it to start over"
            ) from None

    def _read_training(self) -> dict[str, Any]:
        """Recipe and step from the metadata of the finished weights."""
        try:
            return read_training(self.weights)
        except ValueError as error:
            raise ValueError(f"{error}; choose another --out or delete it") from None

    def write_what_is_due(self, training: Any) -> None:
        """Writes the checkpoint, log, sample and state that the recipe asks for before this step.

        ValueError, and nothing is written, where the loss of this step is not finite.
        """
        every = (self.recipe.keep_every, self.recipe.sample_every, self.recipe.save_every)
        if training.step and any(training.step % each == 0 for each in every):
            training.require_sound()
        keep = training.step % self.recipe.keep_every == 0
        if keep and (not training.log or training.log[-1]["step"] < training.step):
            training.validate()
            self.write_weights(training, name_checkpoint(self.out, training.step))
            self._write_log(training)
        if training.step and training.step % self.recipe.sample_every == 0:
            self._write_sample(training)
        if training.step % self.recipe.save_every == 0:
            self.save_state(training)

    def save_state(self, training: Any) -> None:
        state = {
            "recipe": asdict(self.recipe),
            "step": training.step,
            "seconds": training.seconds,
            "log": training.log,
            "model": trained_state(training.model),
            "average": training.average,
            "optimizers": [optimizer.state_dict() for optimizer in training.optimizers],
            "companions": {name: each.state_dict() for name, each in training.companions.items()},
        }
        whole = gather(state)
        if self.writes:
            replace_file(self.state, lambda path: _save(whole, path))

    def finish(self, training: Any) -> Path:
        """The final weights, log and sample, then the last state."""
        if not training.log or training.log[-1]["step"] < training.step:
            training.validate()
        self._write_log(training)
        self._write_sample(training)
        self.write_weights(training, name_checkpoint(self.out, training.step))
        self.write_weights(training, self.weights)
        self.save_state(training)
        return self.weights

    def write_weights(self, training: Any, path: Path) -> None:
        initial = traits(training.model).source.metadata
        metadata = {
            "network": initial.get("network", self.recipe.network),
            "videos": self.recipe.videos,
            "config": training.model.describe(),
            "training": {
                "recipe": asdict(self.recipe),
                "step": training.step,
                "seconds": round(training.seconds, 1),
                "device": training.device.type,
                "threads": torch.get_num_threads(),
                "validation": training.log[-1] if training.log else None,
            },
        }
        if "condition" in initial:
            metadata["condition"] = initial["condition"]
        if getattr(training.source, "is_labelled", False):
            metadata["condition"] = "label"
        if getattr(training.source, "holds_latents", False) or initial.get("latent"):
            metadata["latent"] = True
        if self.recipe.teacher:
            metadata["sampling"] = training.sampling.describe()
        elif (own := traits(training.model).sampling) is not None:
            metadata["sampling"] = own.describe()
        own, recipe = distinct_weights(training.model), self.recipe
        stored = gather({name: training.average.get(name, weight) for name, weight in own.items()})
        stored = merge(stored, recipe.lora_alpha / max(1, recipe.lora_rank))
        if self.writes:
            write(path, stored, metadata)

    def _write_log(self, training: Any) -> None:
        text = io.StringIO()
        table = csv.DictWriter(text, fieldnames=list(training.log[0]))
        table.writeheader()
        table.writerows(training.log)
        if self.writes:
            replace_file(self.out / LOG, lambda path: path.write_text(text.getvalue()))

    def _write_sample(self, training: Any) -> None:
        """A gif of four held-out clips: the true ones above, below them samples that continue their start."""
        from framelens.videos.files import write as write_video

        frames, given = self.recipe.frames, self.recipe.frames // 3
        clips = training.source.clips([videos.VALIDATION_SEED + row for row in range(4)], frames)
        truth, cond = to_tensors(clips, training.device)
        noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(0)).to(training.device)
        with averaged_weights(training.model, training.average) as model:
            sampling = training.sampling
            renoise = sampling.renoise_seed(0)
            sampled = rollout(model, noise, sampling.grid, cond, truth[:, :given], renoise=renoise)
        pairs = torch.cat([truth.cpu(), sampled.float().cpu()], dim=-2).numpy()
        video = np.concatenate(list(pairs), axis=-1)
        video = np.repeat(video, 3 // video.shape[1], axis=1)  # grey as RGB
        path = self.out / "samples" / f"step-{training.step:06d}.gif"
        if self.writes:
            write_video(path, video, frames_per_second=3, scale=6)


def _save(state: dict[str, Any], path: Path) -> None:
    with path.open("wb") as file:  # given a path, torch.save does not say that the disk is full
        torch.save(state, file)


@contextmanager
def finish_step_on_interrupt() -> Iterator[Callable[[], bool]]:
    """Within it, Ctrl-C and SIGTERM interrupt nothing; what it gives tells whether one of them came."""
    received = []
    handlers = {
        number: signal.signal(number, lambda *_: received.append(1))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
