"""One clip, the networks that are shown it, and the noise they start from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

import videos
from diffusion.sampler import rollout
from diffusion.schedule import TrainingDensity, sigma_grid
from probes._stage import DRAWS, Clip, Stage
from probes.finite import require_finite
from probes.settings import Settings

LEVELS = 5
"""Noise levels at which velocities are compared."""


@dataclass(frozen=True)
class Subject:
    """What an experiment measures: networks by name, a clip, and another clip as control."""

    index: int
    networks: Mapping[str, Any]
    clip: Clip
    other: Clip
    settings: Settings
    frames: int
    _stages: dict[str, Stage] = field(default_factory=dict, init=False, compare=False, repr=False)

    @property
    def probed(self) -> list[int]:
        """The frames at which features and attention are read."""
        return probed_frames(self.settings, self.frames)

    @property
    def sigmas(self) -> Float[Tensor, " steps_and_1"]:
        return sigma_grid(self.settings.steps, self.settings.shift)

    def stage(self, network: str = "trained") -> Stage:
        """The last frame with its past in memory, on which interventions are tried; made once."""
        if network not in self._stages:
            model = self.networks[network]
            last = slice(self.frames - 1, self.frames)
            noise = torch.cat([self.noise(draw)[:, last] for draw in range(DRAWS)])
            pasts = {"own": self.clip, "other_clip": self.other}
            steps, shift = self.settings.drawn_steps, self.settings.shift
            levels = training_density(self.networks["trained"]).quantiles(LEVELS)
            stage = Stage(model, pasts, noise, self.frames - 1, steps, shift, levels)
            require_finite(model, stage.sample, self._rollout_to(model, stage))
            self._stages[network] = stage
        return self._stages[network]

    def _rollout_to(self, model: Any, stage: Stage) -> Callable[..., Tensor]:
        """The rollout that draws the probed frames, and the stage's, of the first noise draw."""
        return lambda on_pass: rollout(
            model,
            self.noise(0),
            stage.grid,
            self.clip.cond,
            self.clip.video,
            teacher_forced=True,
            denoised_frames={*self.probed, stage.frame},
            on_pass=on_pass,
        )

    @property
    def layers(self) -> list[int]:
        """The layers that interventions reach for."""
        return self.settings.chosen_layers(len(self.stage().layers))

    def noise(self, draw: int) -> Float[Tensor, "1 f c h w"]:
        """Noise for the whole clip; the same for the same seed, clip and draw, on every device."""
        seed = (self.settings.seed * 1_000_003 + self.index) * 1_009 + draw
        noise = torch.randn(self.clip.video.shape, generator=torch.Generator().manual_seed(seed))
        return noise.to(self.clip.video)


def recipe_of(model: Any) -> dict[str, Any]:
    """The recipe that the model's checkpoint says it was trained by; empty where it says nothing."""
    return (model.source.metadata.get("training") or {}).get("recipe") or {}


def training_density(model: Any) -> TrainingDensity:
    """Where the model's training put its noise levels, as far as its checkpoint says."""
    recipe = recipe_of(model)
    known = {name: recipe[name] for name in ("mean", "spread", "shift", "uniform_share") if name in recipe}
    return TrainingDensity(**known)


def probed_frames(settings: Settings, frames: int) -> list[int]:
    """`settings.probed` frames spread from the first after the context to the last."""
    return sorted(
        set(np.linspace(frames - 1, settings.context, settings.probed).round().astype(int).tolist())
    )


def read_clips(settings: Settings, model: Any, frames: int) -> list[Clip]:
    """One clip more than asked for, so that every clip has another one as control.

    Raises ValueError or FileNotFoundError if the source cannot give clips of the model's size.
    """
    source = settings.videos or model.source.metadata.get("videos")
    if source is None:
        raise ValueError(
            f"{model.source.file} does not say what it was trained on; give --videos and --frames"
        )
    geometry = model.geometry
    if source in videos.names():
        first = videos.VALIDATION_SEED + settings.seed * 1_000_000
        batch = videos.load(source).clips(range(first, first + settings.clips + 1), frames)
    else:
        from videos import files

        batch = files.clips(source, frames, (geometry.height, geometry.width), limit=settings.clips + 1)
    _check_size(batch.video, source, geometry, settings.clips)
    video = torch.from_numpy(batch.video).to(settings.device, getattr(torch, settings.dtype))
    actions = _conditions(batch, model, frames)
    return [
        Clip(video[i : i + 1], None if actions is None else actions[i : i + 1].to(settings.device))
        for i in range(len(video))
    ]


def _conditions(batch: videos.Clips, model: Any, frames: int) -> Tensor | None:
    """The clips' actions; the null condition for clips without, None for an unconditional model."""
    if model.null_condition is None:
        return None
    if batch.actions is None:
        return torch.full((len(batch), frames), model.null_condition)
    return torch.from_numpy(batch.actions)


def _check_size(video: np.ndarray, source: str, geometry: Any, clips: int) -> None:
    wanted = (geometry.channels, geometry.height, geometry.width)
    if video.shape[2:] != wanted:
        raise ValueError(
            f"clips of {source} are {video.shape[2:]} (channels, height, width), the model takes {wanted}"
        )
    if len(video) < clips + 1:
        raise ValueError(
            f"{source} gives {len(video)} clips; {clips} and one more as control are needed: lower --clips"
        )
