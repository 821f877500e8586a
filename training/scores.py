"""What trained arms are worth: validation loss, what a step costs, the frames they draw.

Everything keeps its axes (arm, seed, clip, frame), so that intervals can be taken in the figures.
"""

import csv
import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import xarray as xr

from framelens import models, videos
from framelens.diffusion.sampler import CausalDiffuser, rollout
from framelens.diffusion.schedule import sigma_grid
from framelens.training.recipes import Recipe
from framelens.training.trainer import VALIDATION_SIGMAS, Training, build
from framelens.videos import worlds
from framelens.videos.scores import psnr, ssim

FIRST_CLIP = videos.VALIDATION_SEED + 500_000
"""Away from the clips that training validates on."""


def step_seconds(recipes: Sequence[Recipe], rounds: int, device: str) -> np.ndarray:
    """Seconds of one optimiser step of each recipe [recipe, round], interleaved in random order."""
    runs = [Training(recipe, build(recipe).to(device), device) for recipe in recipes]
    for run in runs:
        run.advance()
    order, seconds = random.Random(0), np.zeros((len(runs), rounds))
    for done in range(rounds):
        for index in order.sample(range(len(runs)), len(runs)):
            began = time.perf_counter()
            runs[index].advance()  # reads the loss, which waits for the device
            seconds[index, done] = time.perf_counter() - began
    return seconds


def table(
    folders: Mapping[tuple[str, int], Path], context: int, steps: int, clips: int, device: str
) -> xr.Dataset:
    """The scores of every arm and seed, with dims (arm, seed, ...)."""
    arms = list(dict.fromkeys(arm for arm, _ in folders))
    seeds = sorted({seed for _, seed in folders})
    by_arm = [
        xr.concat([scores(folders[arm, seed], context, steps, clips, device) for seed in seeds], "seed")
        for arm in arms
    ]
    joined = xr.concat(by_arm, "arm", coords="minimal", compat="equals", join="exact")
    joined = joined.assign_coords(arm=arms, seed=seeds)
    units = {
        "loss": ("1", "validation loss: squared velocity error on held-out clips"),
        "psnr": ("dB", "PSNR"),
        "ssim": ("1", "structural similarity"),
        "state_error": ("", "what a frame shows of the world's state against the truth"),
        "parameters": ("1", "parameters"),
        "seconds": ("s", "training time, on a machine that may have been shared"),
    }
    for name, (unit, text) in units.items():
        if name in joined:
            joined[name].attrs |= {"units": unit, "long_name": text}
    return joined


def drawn(
    model: CausalDiffuser, clips: videos.Clips, context: int, steps: int, seed: int, device: str
) -> dict[str, np.ndarray]:
    """The frames from `context` on [b f c h w]: teacher_forced each from its true past, or free_running."""
    truth = torch.from_numpy(clips.video).to(device)
    cond = None if clips.actions is None else torch.from_numpy(clips.actions).to(device)
    noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(seed)).to(device)
    sigmas, wanted = sigma_grid(steps), set(range(context, truth.shape[1]))
    sampled = {
        "teacher_forced": rollout(model, noise, sigmas, cond, truth, True, wanted),
        "free_running": rollout(model, noise, sigmas, cond, truth[:, :context]),
    }
    return {name: video[:, context:].float().cpu().numpy() for name, video in sampled.items()}


def scores(folder: Path, context: int, steps: int, clips: int, device: str) -> xr.Dataset:
    """One trained network: loss (checkpoint, sigma); psnr, ssim and state_error (sampling, clip, frame).

    Frames are those from `context` on; teacher_forced samples each from its true past, free_running from what
    was sampled before. `copy` repeats the last frame of the true past, `copy of the context` the last given.
    """
    model = models.load(str(folder / "model.safetensors"), device)
    world, frames = worlds.load(model.source.videos), model.source.frames
    batch = world.clips(range(FIRST_CLIP, FIRST_CLIP + clips), frames)
    modes = drawn(model, batch, context, steps, 0, device)
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
    parameters = sum(weight.numel() for weight in model.parameters())
    return xr.Dataset(measured | {"parameters": parameters}, coords).merge(_log(folder))


def _log(folder: Path) -> xr.Dataset:
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
