"""Scores of sampled clips against the true ones, as `training.evaluate` prints them: means over all clips.

    score_next_frame(sampled, clips, context=4) | score_free_run(free, clips, context=4)

Sampled frames are those from `context` on, float32 [b f c h w] in [-1, 1].
"""

from typing import Any

import numpy as np

from framelens.videos import Clips
from framelens.videos.scores import psnr, ssim

AGES = {"never seen": 0, "in view in the last frame": 1, "seen only before the last frame": 2}
"""When the place that a pixel shows was last in view, by the codes of a world with memory."""


def score_next_frame(sampled: np.ndarray, clips: Clips, context: int) -> dict[str, float]:
    """Scores of samples that continue the true past, of two guesses beside them, and errors by memory."""
    video, frames = clips.video, clips.video.shape[1]
    means = video.cumsum(1)[:, :-1] / np.arange(1, frames)[:, None, None, None]
    guesses = {"model": sampled, "copy of the last frame": video[:, context - 1 : -1]}
    guesses |= {"mean frame of the past": means[:, context - 1 :]}
    target = video[:, context:]
    scores = {
        f"PSNR of the {name} (dB)": float(psnr(guess, target).mean()) for name, guess in guesses.items()
    }
    scores["SSIM of the model"] = float(ssim(sampled, target).mean())
    if "in_view_before" in clips.state:
        scores |= score_by_memory(sampled.clip(-1, 1), target, clips.state["in_view_before"][:, context:])
    return scores


def score_by_memory(guess: np.ndarray, target: np.ndarray, seen: np.ndarray) -> dict[str, float]:
    """Mean squared error of the pixels of each age, by when the place that they show was last in view."""
    error = ((guess - target) ** 2).mean(axis=2)
    return {f"squared error, pixels {age}": float(error[seen == code].mean()) for age, code in AGES.items()}


def score_free_run(free: np.ndarray, clips: Clips, context: int) -> dict[str, float]:
    """PSNR of the last frame of samples that continue what was sampled before."""
    return {"PSNR of a free run, last frame (dB)": float(psnr(free, clips.video[:, context:])[:, -1].mean())}


def score_state(
    world: Any, sampled: np.ndarray, free: np.ndarray, clips: Clips, context: int
) -> dict[str, float]:
    """Errors of the world's state as next frames, and the last frame of a free run, show it."""
    state = {name: values[:, context:] for name, values in clips.state.items()}
    return {
        f"next frame: {world.STATE_ERROR}": float(world.state_error(sampled, state).mean()),
        f"free run, last frame: {world.STATE_ERROR}": float(world.state_error(free, state)[:, -1].mean()),
    }
