"""Scores of trained networks: validation loss, seconds of a step, quality of the frames that they sample.

Every score keeps its axes (arm, seed, clip, frame), so that figures can take intervals over them.
"""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import xarray as xr

from framelens import models, videos
from framelens.diffusion.contract import CausalDiffuser, module_of, traits
from framelens.diffusion.sampler import rollout
from framelens.diffusion.schedule import Sampling
from framelens.training.build import build
from framelens.training.recipes import Recipe
from framelens.training.tensors import to_tensors
from framelens.training.timing import time_interleaved
from framelens.training.trainer import VALIDATION_SIGMAS, Training
from framelens.videos import worlds
from framelens.videos.scores import psnr, ssim

FIRST_CLIP = videos.VALIDATION_SEED + 500_000
"""The first seed of the clips to score on; training validates on others."""
FREE = ("free_running",)
MODES = ("teacher_forced", *FREE)
"""How frames are sampled: each after the true past, or after the frames sampled before it."""


def time_steps(recipes: Sequence[Recipe], rounds: int, device: str) -> np.ndarray:
    """Seconds of one optimiser step of each recipe [recipe, round], interleaved in random order."""
    trainings = [Training(recipe, build(recipe, device), device) for recipe in recipes]
    # A step reads the loss, which waits for the device.
    return time_interleaved([training.advance for training in trainings], rounds)


def score_arms(
    folders: Mapping[tuple[str, int], Path], context: int, steps: int, clips: int, device: str, seed: int = 0
) -> xr.Dataset:
    """The scores of every arm and training seed, with dims (arm, seed, ...); `seed` decides the noise."""
    arms = list(dict.fromkeys(arm for arm, _ in folders))
    seeds = sorted({trained for _, trained in folders})
    by_arm = [
        xr.concat([score_arm(folders[arm, s], context, steps, clips, device, seed) for s in seeds], "seed")
        for arm in arms
    ]
    merged = xr.concat(by_arm, "arm", coords="minimal", compat="equals", join="exact")
    merged = merged.assign_coords(arm=arms, seed=seeds)
    units = {
        "loss": ("1", "validation loss: squared velocity error on held-out clips"),
        "psnr": ("dB", "PSNR"),
        "ssim": ("1", "structural similarity"),
        "state_error": ("", "error of the world's state as a frame shows it"),
        "parameters": ("1", "parameters"),
        "seconds": ("s", "training time, on a machine that may have been shared"),
    }
    return describe_variables(merged, units)


def describe_variables(dataset: xr.Dataset, units: Mapping[str, tuple[str, str]]) -> xr.Dataset:
    """The dataset with unit and long name of each variable that it has, by name."""
    for name, (unit, text) in units.items():
        if name in dataset:
            dataset[name].attrs |= {"units": unit, "long_name": text}
    return dataset


def sample_frames(
    model: CausalDiffuser,
    clips: videos.Clips,
    context: int,
    sampling: Sampling,
    seed: int,
    device: str,
    modes: Sequence[str] = MODES,
) -> dict[str, np.ndarray]:
    """Samples of the frames from `context` on [b f c h w] in each of these modes.

    ValueError where they are not finite.
    """
    truth, cond = to_tensors(clips, device)
    noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(seed)).to(device)
    sigmas, wanted = sampling.grid, set(range(context, truth.shape[1]))
    also = {"renoise": sampling.renoise_seed(seed), "first_sigmas": sampling.first_grid}
    sampled = {}
    for mode in modes:
        if mode == "teacher_forced":
            video = rollout(model, noise, sigmas, cond, truth, True, wanted, **also)
        else:
            video = rollout(model, noise, sigmas, cond, truth[:, :context], **also)
        if not torch.isfinite(video).all():
            raise ValueError(
                f"the {mode.replace('_', '-')} samples are not finite (NaN or infinity) and have no scores"
            )
        sampled[mode] = video[:, context:].float().cpu().numpy()
    return sampled


def score_arm(folder: Path, context: int, steps: int, clips: int, device: str, seed: int) -> xr.Dataset:
    """One trained network: loss (checkpoint, sigma); psnr, ssim and state_error (sampling, clip, frame).

    Frames are those from `context` on. The samples of teacher_forced continue the true past, those of
    free_running their own. `copy` repeats the last frame of the true past, `copy of the context` the last
    given frame.
    """
    model = models.load(str(folder / "model.safetensors"), device)
    source = traits(model).source
    world, frames = worlds.load(source.videos), source.frames
    batch = world.clips(range(FIRST_CLIP, FIRST_CLIP + clips), frames)
    modes = sample_frames(model, batch, context, Sampling(steps), seed, device)
    modes["copy"] = batch.video[:, context - 1 : -1]
    modes["copy of the context"] = np.broadcast_to(batch.video[:, context - 1 : context], modes["copy"].shape)
    target, state = batch.video[:, context:], {name: v[:, context:] for name, v in batch.state.items()}
    dims, values = ("sampling", "clip", "frame"), list(modes.values())
    measured = {
        "psnr": (dims, np.stack([psnr(video, target) for video in values])),
        "ssim": (dims, np.stack([ssim(video, target) for video in values])),
    }
    if hasattr(world, "state_error"):
        measured["state_error"] = (dims, np.stack([world.state_error(video, state) for video in values]))
    coords = {"sampling": list(modes), "frame": np.arange(context, frames)}
    parameters = sum(weight.numel() for weight in module_of(model).parameters())
    return xr.Dataset(measured | {"parameters": parameters}, coords).merge(_read_log(folder))


def _read_log(folder: Path) -> xr.Dataset:
    """The losses and seconds of a training's log, by checkpoint (its step) and noise level."""
    with open(folder / "log.csv") as file:
        rows = list(csv.DictReader(file))
    loss = [[float(row[f"loss_sigma_{sigma}"]) for sigma in VALIDATION_SIGMAS] for row in rows]
    return xr.Dataset(
        {
            "loss": (("checkpoint", "sigma"), loss),
            "seconds": ("checkpoint", [float(r["seconds"]) for r in rows]),
        },
        {"checkpoint": [int(row["step"]) for row in rows], "sigma": list(VALIDATION_SIGMAS)},
    )
