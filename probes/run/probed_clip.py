"""One clip, the networks that are shown it, and the noise they start from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from framelens.diffusion.contract import CausalDiffuser, traits
from framelens.diffusion.guidance import guide
from framelens.diffusion.sampler import rollout
from framelens.diffusion.schedule import Sampling, TrainingDensity
from framelens.probes.chunk.chunk_probe import DRAWS, ChunkProbe
from framelens.probes.chunk.pasts import Clip
from framelens.probes.run.finite import require_finite
from framelens.probes.run.noise import noise_like, renoise_seed_of, seed_of
from framelens.probes.run.settings import Settings

LEVELS = 5
"""Noise levels at which velocities are compared."""
CHUNK_PROBE = "chunk_probe"
"""The name of the noise of the chunk that interventions share."""


@dataclass(frozen=True)
class ProbedClip:
    """What an experiment measures: networks by name, a clip of whole chunks, and another clip as control."""

    index: int
    networks: Mapping[str, CausalDiffuser]
    clip: Clip
    other: Clip
    settings: Settings
    frames: int
    _chunk_probes: dict[str, ChunkProbe] = field(default_factory=dict, init=False, compare=False, repr=False)

    @property
    def chunk(self) -> int:
        """Frames that the model makes together."""
        return next(iter(self.networks.values())).geometry.frames_per_chunk

    @property
    def chunks(self) -> range:
        """The first frame of each chunk of the clip."""
        return range(0, self.frames, self.chunk)

    def span(self, frame: int) -> slice:
        """The frames of the chunk that begins with this one."""
        return slice(frame, frame + self.chunk)

    @property
    def probed(self) -> list[int]:
        """The first frames of the chunks in which features and attention are read."""
        return probed_frames(self.settings, self.frames, self.chunk)

    @property
    def sigmas(self) -> Float[Tensor, " steps_and_1"]:
        return grid_of(self.settings)

    def sampler(self, network: CausalDiffuser) -> CausalDiffuser:
        """The network as it is sampled: under the run's guidance, away from the clip's negative condition."""
        return guide(network, self.settings.guidance, null=self.clip.negative)

    def chunk_probe(self, network: str = "trained") -> ChunkProbe:
        """The last chunk with its past in memory, on which interventions are tried; made once."""
        if network not in self._chunk_probes:
            model, frame = self.networks[network], self.chunks[-1]
            noise = torch.cat([self.noise(CHUNK_PROBE, draw)[:, frame:] for draw in range(DRAWS)])
            pasts = {"own": self.clip, "other_clip": self.other}
            pasts["other_frames"] = replace(self.clip, video=self.other.video)
            grid = grid_of(self.settings, self.settings.drawn_steps)
            levels = training_density(self.networks["trained"]).quantiles(LEVELS)
            seeds = [self.renoise_seed(CHUNK_PROBE, draw) for draw in range(DRAWS)]
            renoise = tuple(seed for seed in seeds if seed is not None) or None
            probe = ChunkProbe(model, pasts, noise, frame, grid, levels, renoise)
            require_finite(model, probe.sample, self._rollout_to(model, probe))
            self._chunk_probes[network] = probe
        return self._chunk_probes[network]

    def _rollout_to(self, model: CausalDiffuser, probe: ChunkProbe) -> Callable[..., Tensor]:
        """The rollout that draws the probed frames, and the chunk probe's, of the first noise draw."""
        return lambda on_pass: rollout(
            model,
            self.noise(CHUNK_PROBE),
            probe.grid,
            self.clip.cond,
            self.clip.video,
            teacher_forced=True,
            denoised_frames={*self.probed, probe.frame},
            on_pass=on_pass,
            renoise=self.renoise_seed(CHUNK_PROBE),
        )

    @property
    def layers(self) -> list[int]:
        """The layers that interventions reach for."""
        return self.settings.chosen_layers(len(self.chunk_probe().layers))

    def noise(self, name: str, number: int = 0) -> Float[Tensor, "1 f c h w"]:
        """Noise for the whole clip; the same for the same seed, clip, name and number, on every device."""
        return noise_like(self.clip.video, seed_of(self.settings, self.index, name, number))

    def renoise_seed(self, name: str, number: int = 0) -> int | None:
        """The seed of what rollouts from that noise add between their steps; None where they add nothing."""
        return renoise_seed_of(self.settings, self.index, name, number)


def grid_of(settings: Settings, steps: int | None = None) -> Float[Tensor, " steps_and_1"]:
    """The noise levels of a sampler of `steps` steps, by default the run's: from 1 down to 0, the model's
    own where they are as many."""
    steps = settings.steps if steps is None else steps
    own = settings.levels if settings.levels and len(settings.levels) == steps else None
    return Sampling(steps, settings.shift, levels=own).grid


def recipe_of(model: CausalDiffuser) -> dict[str, Any]:
    """The recipe that the model's checkpoint says it was trained by; empty where it says nothing."""
    return (traits(model).source.metadata.get("training") or {}).get("recipe") or {}


def training_density(model: CausalDiffuser) -> TrainingDensity:
    """Where the model's training put its noise levels, as far as its checkpoint or the model itself says."""
    declared = recipe_of(model) or traits(model).density
    known = {
        name: declared[name] for name in ("mean", "spread", "shift", "uniform_share") if name in declared
    }
    return TrainingDensity(**known)


def probed_frames(settings: Settings, frames: int, chunk: int = 1) -> list[int]:
    """The first frames of `settings.probed` chunks, spread from the first after the context to the last."""
    even = np.linspace(frames // chunk - 1, settings.context // chunk, settings.probed)
    return sorted({int(index) * chunk for index in even.round()})
