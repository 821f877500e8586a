"""The folder of a training run: resumable state, kept checkpoints, log, samples; every write atomic.

out/state.pt  out/checkpoints/step-000200.safetensors  out/log.csv  out/samples/*.gif  out/model.safetensors
"""

import csv
import io
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import torch

from framelens import videos
from framelens.diffusion.sampler import rollout
from framelens.diffusion.schedule import sigma_grid
from framelens.models.loading.checkpoint import write
from framelens.records import replace_file
from framelens.training.averaging import averaged_weights
from framelens.training.recipes import Recipe


class TrainingFolder:
    """Where one recipe's training lives; refuses a folder that belongs to another recipe."""

    def __init__(self, out: Path, recipe: Recipe):
        self.out, self.recipe = out, recipe
        self.state = out / "state.pt"
        out.mkdir(parents=True, exist_ok=True)

    def resume(self, run) -> None:
        """Puts the newest saved state, if there is one, into the run."""
        if not self.state.exists():
            return
        saved = self._read_state()
        changed = {
            k: (v, asdict(self.recipe)[k]) for k, v in saved["recipe"].items() if asdict(self.recipe)[k] != v
        }
        if changed:
            name, (old, new) = next(iter(changed.items()))
            raise ValueError(
                f"{self.out} was trained with {name}={old}, not {new}; choose another --out or delete it"
            )
        run.step, run.seconds, run.log = saved["step"], saved["seconds"], saved["log"]
        run.model.load_state_dict(saved["model"])
        run.average = {name: tensor.to(run.device) for name, tensor in saved["average"].items()}
        for optimizer, state in zip(run.optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)

    def _read_state(self) -> dict:
        damaged = (RuntimeError, OSError, EOFError, ValueError, TypeError, LookupError, UnpicklingError)
        try:
            saved = torch.load(self.state, map_location="cpu", weights_only=True)
            return saved | {"recipe": dict(saved["recipe"])}
        except damaged as error:
            raise ValueError(
                f"{self.state} cannot be read ({type(error).__name__}); delete it to start over"
            ) from None

    def at_step(self, run) -> None:
        """Keeps, validates, samples and saves where the recipe asks for it; called before each step."""
        keep = run.step % self.recipe.keep_every == 0
        if keep and (not run.log or run.log[-1]["step"] < run.step):
            run.validate()
            self.write_weights(run, self.out / "checkpoints" / f"step-{run.step:06d}.safetensors")
            self._write_log(run)
        if run.step and run.step % self.recipe.sample_every == 0:
            self._write_sample(run)
        if run.step % self.recipe.save_every == 0:
            self.save_state(run)

    def save_state(self, run) -> None:
        state = {
            "recipe": asdict(self.recipe),
            "step": run.step,
            "seconds": run.seconds,
            "log": run.log,
            "model": run.model.state_dict(),
            "average": run.average,
            "optimizers": [optimizer.state_dict() for optimizer in run.optimizers],
        }
        replace_file(self.state, lambda path: torch.save(state, path))

    def finish(self, run) -> Path:
        """The final weights, log and sample, then the last state."""
        if not run.log or run.log[-1]["step"] < run.step:
            run.validate()
        self._write_log(run)
        self._write_sample(run)
        self.write_weights(run, self.out / "checkpoints" / f"step-{run.step:06d}.safetensors")
        self.write_weights(run, self.out / "model.safetensors")
        self.save_state(run)
        return self.out / "model.safetensors"

    def write_weights(self, run, path: Path) -> None:
        metadata = {
            "network": self.recipe.network,
            "videos": self.recipe.videos,
            "config": run.model.describe(),
            "training": {
                "recipe": asdict(self.recipe),
                "step": run.step,
                "seconds": round(run.seconds, 1),
                "device": run.device.type,
                "threads": torch.get_num_threads(),
                "validation": run.log[-1] if run.log else None,
            },
        }
        write(path, run.average, metadata)

    def _write_log(self, run) -> None:
        text = io.StringIO()
        table = csv.DictWriter(text, fieldnames=list(run.log[0]))
        table.writeheader()
        table.writerows(run.log)
        replace_file(self.out / "log.csv", lambda path: path.write_text(text.getvalue()))

    def _write_sample(self, run) -> None:
        frames, given = self.recipe.frames, self.recipe.frames // 3
        clips = run.source.clips([videos.VALIDATION_SEED + row for row in range(4)], frames)
        truth = torch.from_numpy(clips.video).to(run.device)
        noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(0)).to(run.device)
        cond = None if clips.actions is None else torch.from_numpy(clips.actions).to(run.device)
        with averaged_weights(run.model, run.average) as model:
            sampled = rollout(model, noise, sigma_grid(25), cond, truth[:, :given])
        pair = np.concatenate(
            [truth.cpu().numpy(), sampled.float().cpu().numpy()], axis=-2
        )  # truth above sample
        video = np.concatenate(list(pair), axis=-1)
        video = np.repeat(video, 3 // video.shape[1], axis=1)  # grey as RGB
        from framelens.videos.files import write as write_video

        (self.out / "samples").mkdir(exist_ok=True)
        write_video(self.out / "samples" / f"step-{run.step:06d}.gif", video, frames_per_second=3, scale=6)

    @contextmanager
    def stop_politely(self) -> Iterator[Callable[[], bool]]:
        """Within it, Ctrl-C and SIGTERM only raise a flag, so that the step in progress is finished."""
        asked = []
        before = {s: signal.signal(s, lambda *_: asked.append(1)) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield lambda: bool(asked)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
