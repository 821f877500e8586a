"""Quality against time of several samplers of one world: the same clips, noise and rounds for all.

result = measure_trade(arms, clips=32, context=4, rounds=5, seed=0, device="cpu")
"""

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr

from framelens.diffusion.contract import CausalDiffuser
from framelens.diffusion.sampler import rollout
from framelens.diffusion.schedule import Sampling
from framelens.records.progress import progress_bar
from framelens.training.clip_scores import AGES, REMEMBERED, difference_by_clip, fit_range
from framelens.training.scores import FIRST_CLIP, FREE, describe_variables, sample_frames
from framelens.training.source import open_source, require_held_out
from framelens.training.tensors import to_tensors
from framelens.training.timing import time_interleaved
from framelens.videos import Clips
from framelens.videos.scores import psnr

UNITS = {
    "psnr": ("dB", "PSNR of generated frames"),
    "memory_error": ("1", "squared error of pixels seen only before the last frame, true past given"),
    "diversity": ("1", "mean absolute difference of two free runs with different noise"),
    "contrast": ("1", "standard deviation of generated frames over that of the true ones, own past"),
    "seconds": ("s", "time of one frame of a free run, all arms interleaved"),
    "evaluations": ("1", "denoising steps of one frame"),
}


class TimedSampler(NamedTuple):
    """A model and how it is sampled."""

    model: CausalDiffuser
    sampling: Sampling


def measure_trade(
    arms: Mapping[str, TimedSampler],
    videos: str,
    frames: int,
    clips: int,
    context: int,
    rounds: int,
    seed: int,
    device: str,
) -> xr.Dataset:
    """Scores by arm and clip of these videos, and seconds of a frame by arm and round.

    PSNR has dims (sampling, arm, clip, frame): teacher_forced continues the true past, free_running its own.
    Latents beyond [-1, 1] are divided by the largest absolute value of the true ones.
    """
    world = open_source(videos)
    require_held_out(world, clips)
    batch = world.clips(range(FIRST_CLIP, FIRST_CLIP + clips), frames)
    scored = [
        _score(arm, batch, context, seed, device)
        for arm in progress_bar(arms.values(), unit="sampler", leave=False)
    ]
    found = xr.concat(scored, "arm").assign_coords(arm=list(arms))
    found["seconds"] = ("arm", "round"), _time_frames(list(arms.values()), batch, context, rounds, device)
    found["evaluations"] = ("arm",), [arm.sampling.steps for arm in arms.values()]
    return describe_variables(found, UNITS)


def _score(arm: TimedSampler, clips: Clips, context: int, seed: int, device: str) -> xr.Dataset:
    modes = sample_frames(arm.model, clips, context, arm.sampling, seed, device)
    other = sample_frames(arm.model, clips, context, arm.sampling, seed + 1, device, FREE)
    clips, fitted = fit_range(clips, *modes.values(), *other.values())
    modes, target = dict(zip(modes, fitted, strict=False)), clips.video[:, context:]
    free, second = modes["free_running"], fitted[-1]
    values = {
        "psnr": (("sampling", "clip", "frame"), np.stack([psnr(video, target) for video in modes.values()])),
        "diversity": ("clip", difference_by_clip(free, second)),
        "contrast": ("clip", free.std(axis=(1, 2, 3, 4)) / target.std(axis=(1, 2, 3, 4))),
    }
    if "in_view_before" in clips.state:
        seen = clips.state["in_view_before"][:, context:] == AGES[REMEMBERED]
        error = ((modes["teacher_forced"] - target) ** 2).mean(axis=2)
        values["memory_error"] = (
            "clip",
            np.ma.masked_array(error, ~seen).mean(axis=(1, 2, 3)).filled(np.nan),
        )
    frames = np.arange(context, clips.video.shape[1])
    return xr.Dataset(values, {"sampling": list(modes), "frame": frames})


def _time_frames(
    arms: list[TimedSampler], clips: Clips, context: int, rounds: int, device: str
) -> np.ndarray:
    """Seconds of a frame of a free run of one clip [arm, round], interleaved in random order."""
    truth, cond = to_tensors(clips, device)
    truth, cond = truth[:1], None if cond is None else cond[:1]
    noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(0)).to(device)

    def run(arm: TimedSampler) -> float:
        model, sampling, given = arm.model, arm.sampling, truth[:, :context]
        video = rollout(model, noise, sampling.grid, cond, given, renoise=sampling.renoise_seed(0))
        return video.sum().item()  # waits for the device

    seconds = time_interleaved([partial(run, arm) for arm in arms], rounds)
    return seconds / (truth.shape[1] - context)
