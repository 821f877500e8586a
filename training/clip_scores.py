"""Scores of sampled clips against the true ones, as `training.evaluate` prints them: means over all clips.

    clips, (sampled, free) = fit_range(clips, sampled, free)
    score_next_frame(sampled, clips, context=4) | score_free_run(free, clips, context=4)

Sampled frames are those from `context` on, float32 [b f c h w] in [-1, 1].
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from framelens.training.measures import ScoreMean, average, ratio
from framelens.videos import Clips
from framelens.videos.scores import BEST_PSNR, GAUSSIAN_SIDE, psnr, ssim

AGES = {"never seen": 0, "in view in the last frame": 1, "seen only before the last frame": 2}
"""When the place that a pixel shows was last in view, by the codes of a world with memory."""
REMEMBERED = "seen only before the last frame"
Measure = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""A score [b f] of frames [b f c h w] against the true ones."""


def fit_range(clips: Clips, *sampled: np.ndarray) -> tuple[Clips, list[np.ndarray]]:
    """The clips and samples in [-1, 1]: latents are divided by the largest of the true ones."""
    scale = max(1.0, float(np.abs(clips.video).max()))
    return replace(clips, video=clips.video / scale), [(video / scale).clip(-1, 1) for video in sampled]


def score_next_frame(sampled: np.ndarray, clips: Clips, context: int) -> dict[str, ScoreMean]:
    """Scores of samples that continue the true past, of two guesses beside them, and errors by memory."""
    video, frames = clips.video, clips.video.shape[1]
    means = video.cumsum(1)[:, :-1] / np.arange(1, frames)[:, None, None, None]
    guesses = {"model": sampled, "copy of the last frame": video[:, context - 1 : -1]}
    guesses |= {"mean frame of the past": means[:, context - 1 :]}
    target = video[:, context:]
    found = {name: psnr(guess, target) for name, guess in guesses.items()}
    scores = {f"PSNR of the {name} (dB)": average(values) for name, values in found.items()}
    for name, values in found.items():
        scores[f"PSNR of the {name}, without exact copies (dB)"] = average(values, values < BEST_PSNR)
    scores["SSIM of the model"] = average(ssim(sampled, target))
    if "in_view_before" in clips.state:
        scores |= score_by_memory(sampled, target, clips.state["in_view_before"][:, context:])
    return scores


def score_by_memory(guess: np.ndarray, target: np.ndarray, seen: np.ndarray) -> dict[str, ScoreMean]:
    """Mean squared error of the pixels of each age, by when the place that they show was last in view."""
    error = ((guess - target) ** 2).mean(axis=2)
    return {f"squared error, pixels {age}": average(error, seen == code) for age, code in AGES.items()}


def score_free_run(free: np.ndarray, clips: Clips, context: int) -> dict[str, ScoreMean]:
    """Scores of samples that continue what was sampled before: PSNR, its slope, motion, and revisits."""
    target, last = clips.video[:, context:], clips.video[:, context - 1 : context]
    values = psnr(free, target)
    scores = {
        "PSNR of a free run, last frame (dB)": average(values[:, -1]),
        "free run: motion energy, generated over true": ratio(_motion(free, last), _motion(target, last)),
    }
    if values.shape[1] > 1:
        scores["free run: slope of the PSNR (dB a frame)"] = average(_slope(values))
    if "in_view_before" in clips.state:
        seen = clips.state["in_view_before"][:, context:] == AGES[REMEMBERED]
        error = ((free - target) ** 2).mean(axis=2)
        scores[f"free run: squared error, pixels {REMEMBERED}"] = average(error, seen)
    return scores


def psnr_by_frame(free: np.ndarray, clips: Clips, context: int) -> dict[int, ScoreMean]:
    """PSNR of each frame of a free run, in dB, by its number in the clip."""
    values = psnr(free, clips.video[:, context:])
    return {context + index: average(values[:, index]) for index in range(values.shape[1])}


def score_perceptual(
    lpips: Measure, sampled: np.ndarray, free: np.ndarray, clips: Clips, context: int
) -> dict[str, ScoreMean]:
    """LPIPS of the next frame, of the copy of the last frame beside it, and of a free run's last frame."""
    target = clips.video[:, context:]
    return {
        "LPIPS of the model": average(lpips(sampled, target)),
        "LPIPS of the copy of the last frame": average(lpips(clips.video[:, context - 1 : -1], target)),
        "LPIPS of a free run, last frame": average(lpips(free[:, -1:], target[:, -1:])),
    }


def score_best_of(
    runs: Sequence[np.ndarray], clips: Clips, context: int, lpips: Measure | None = None
) -> tuple[dict[str, ScoreMean], dict[str, dict[int, ScoreMean]]]:
    """Means over the frames of a free run, of the best run of each clip by that mean; and the same by frame.

    Each score chooses its own best run. The numbers of frames are those in the clip. SSIM has Gaussian
    windows, and is left out for frames that are smaller than these.
    """
    target, clip = clips.video[:, context:], np.arange(len(clips))
    measures: dict[str, tuple[Measure, int]] = {"PSNR (dB)": (psnr, 1)}
    if min(target.shape[-2:]) >= GAUSSIAN_SIDE:
        measures["SSIM (Gaussian windows)"] = (partial(ssim, gaussian=True), 1)
    if lpips is not None:
        measures["LPIPS"] = (lpips, -1)
    whole, by_frame = {}, {}
    for name, (measure, better) in measures.items():
        values = np.stack([measure(run, target) for run in runs])
        best = values[(better * values.mean(axis=2)).argmax(axis=0), clip]
        of = f"{name} of a free run, best of {len(runs)}"
        whole[f"{of}, mean of {best.shape[1]} frames"] = average(best)
        by_frame[of] = {context + index: average(best[:, index]) for index in range(best.shape[1])}
    return whole, by_frame


def difference_by_clip(free: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Mean absolute difference of two samples of each clip [b]: how much the noise decides."""
    return np.abs(free - other).mean(axis=(1, 2, 3, 4))


def score_state(
    world: Any, sampled: np.ndarray, free: np.ndarray, clips: Clips, context: int
) -> dict[str, ScoreMean]:
    """Errors of the world's state as next frames, and the last frame of a free run, show it."""
    state = {name: values[:, context:] for name, values in clips.state.items()}
    return {
        f"next frame: {world.STATE_ERROR}": average(world.state_error(sampled, state)),
        f"free run, last frame: {world.STATE_ERROR}": average(world.state_error(free, state)[:, -1]),
    }


def _motion(video: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Mean absolute difference of consecutive frames of each clip [b], from the last given frame on."""
    return np.abs(np.diff(np.concatenate([last, video], axis=1), axis=1)).mean(axis=(1, 2, 3, 4))


def _slope(values: np.ndarray) -> np.ndarray:
    """The least-squares slope over frames of each clip [b]."""
    frames = np.arange(values.shape[1]) - (values.shape[1] - 1) / 2
    return values @ frames / (frames @ frames)
