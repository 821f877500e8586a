"""Scores of sampled clips that frames alone decide, on clips whose scores are known."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from framelens.analyses.intervals import mean_interval
from framelens.training.clip_scores import (
    difference_by_clip,
    fit_range,
    psnr_by_frame,
    score_best_of,
    score_free_run,
    score_next_frame,
)
from framelens.training.measures import average, ratio
from framelens.videos import Clips, worlds
from framelens.videos.scores import BEST_PSNR, ssim

CONTEXT, CLIPS = 2, 6


@pytest.fixture(scope="module")
def tiles():
    return worlds.load("tiles").clips(range(CLIPS), 8)


def towards_grey(video, size):
    """The video with an error of this size at every pixel, inside [-1, 1]."""
    return video - size * np.where(video > 0, 1, -1)


@pytest.fixture
def noisy(tiles):
    """Frames whose error grows from one frame to the next."""
    target = tiles.video[:, CONTEXT:]
    return towards_grey(target, 0.02 * 2.0 ** np.arange(target.shape[1])[:, None, None, None])


def test_a_mean_over_all_values_has_the_interval_of_the_means_of_clips():
    values = np.random.default_rng(0).normal(3, 1, (9, 4, 5))
    expected = mean_interval(values.mean(axis=(1, 2)))
    assert average(values)[:3] == pytest.approx(tuple(map(float, expected)), abs=1e-4)
    assert average(values).clips == 9


def test_an_interval_of_a_ratio_covers_the_true_ratio_about_as_often_as_it_says():
    rng, hits, draws = np.random.default_rng(1), 0, 400
    for _ in range(draws):
        under = rng.uniform(1, 3, 20)
        found = ratio(2 * under + rng.normal(0, 0.5, 20), under)
        hits += found.low <= 2 <= found.high
    assert 0.91 < hits / draws < 0.985


def test_a_mean_of_few_clips_has_no_interval_and_of_none_no_value():
    values = np.ones((4, 3))
    assert average(values) == (1.0, None, None, 4)
    nothing = average(values, np.zeros_like(values, bool))
    assert np.isnan(nothing.mean) and nothing.clips == 0


def test_exact_copies_are_left_out_of_the_second_psnr(tiles):
    target = tiles.video[:, CONTEXT:]
    guess = target.copy()
    guess[:, 1:] = towards_grey(guess[:, 1:], 0.2)
    scores = score_next_frame(guess, tiles, CONTEXT)
    expected = 10 * np.log10(4 / 0.04)
    assert scores["PSNR of the model, without exact copies (dB)"].mean == pytest.approx(expected, abs=1e-3)
    both = (BEST_PSNR + 5 * expected) / 6
    assert scores["PSNR of the model (dB)"].mean == pytest.approx(both, abs=1e-3)
    assert score_next_frame(target, tiles, CONTEXT)["PSNR of the model, without exact copies (dB)"].clips == 0


def test_the_slope_of_the_psnr_is_that_of_its_frames(tiles, noisy):
    frames = psnr_by_frame(noisy, tiles, CONTEXT)
    assert list(frames) == list(range(CONTEXT, 8))
    slope = score_free_run(noisy, tiles, CONTEXT)["free run: slope of the PSNR (dB a frame)"]
    expected = np.polyfit(list(frames), [measure.mean for measure in frames.values()], 1)[0]
    assert slope.mean == pytest.approx(expected, abs=1e-3) and slope.high < 0
    assert frames[7].mean == score_free_run(noisy, tiles, CONTEXT)["PSNR of a free run, last frame (dB)"].mean


def test_motion_energy_is_1_for_the_truth_and_0_for_a_standing_frame(tiles):
    name = "free run: motion energy, generated over true"
    target = tiles.video[:, CONTEXT:]
    still = np.broadcast_to(tiles.video[:, CONTEXT - 1 : CONTEXT], target.shape)
    assert score_free_run(target, tiles, CONTEXT)[name].mean == 1
    assert score_free_run(still, tiles, CONTEXT)[name].mean == 0


def test_the_error_at_revisits_counts_only_pixels_seen_only_before_the_last_frame(tiles):
    name = "free run: squared error, pixels seen only before the last frame"
    target = tiles.video[:, CONTEXT:]
    seen = (tiles.state["in_view_before"][:, CONTEXT:] == 2)[:, :, None]
    assert seen.any()
    away = towards_grey(target, 0.5)
    assert score_free_run(np.where(seen, away, target), tiles, CONTEXT)[name].mean == pytest.approx(
        0.25, abs=1e-3
    )
    assert score_free_run(np.where(seen, target, away), tiles, CONTEXT)[name].mean == 0


def test_two_samples_differ_by_their_mean_absolute_difference(tiles):
    video = tiles.video
    assert difference_by_clip(video, video).tolist() == [0] * CLIPS
    assert difference_by_clip(video, video + 0.25) == pytest.approx([0.25] * CLIPS, abs=1e-6)


def test_latents_are_scored_on_the_scale_of_the_true_ones():
    latents = Clips(np.random.default_rng(0).normal(0, 3, (2, 4, 3, 8, 8)).astype(np.float32))
    fitted, (sampled,) = fit_range(latents, latents.video[:, 2:])
    assert np.abs(fitted.video).max() == 1
    assert psnr_by_frame(sampled, fitted, 2)[3].mean == BEST_PSNR


def test_the_best_run_of_each_clip_is_chosen_by_the_mean_over_its_frames(tiles):
    target = tiles.video[:, CONTEXT:]
    near, far = (towards_grey(target, size) for size in (0.1, 0.2))
    first, second = near.copy(), far.copy()
    first[1], second[1] = far[1], near[1]
    first[0, 0], second[0, 0] = far[0, 0], near[0, 0]  # one worse frame of the better run
    scores, by_frame = score_best_of([first, second], tiles, CONTEXT)
    name = "PSNR (dB) of a free run, best of 2"
    frames = target.shape[1]
    low, high = (10 * np.log10(4 / size**2) for size in (0.2, 0.1))
    expected = high - (high - low) / (CLIPS * frames)
    assert scores[f"{name}, mean of {frames} frames"].mean == pytest.approx(expected, abs=1e-3)
    found = by_frame[name]
    assert list(found) == list(range(CONTEXT, CONTEXT + frames))
    assert found[CONTEXT].mean == pytest.approx(high - (high - low) / CLIPS, abs=1e-3)
    assert found[CONTEXT + 1].mean == pytest.approx(high, abs=1e-3)
    alone, _ = score_best_of([second], tiles, CONTEXT)
    both = scores[f"SSIM (Gaussian windows) of a free run, best of 2, mean of {frames} frames"].mean
    assert alone[f"SSIM (Gaussian windows) of a free run, best of 1, mean of {frames} frames"].mean < both


def test_of_a_score_that_is_better_when_small_the_smallest_is_chosen(tiles):
    target = tiles.video[:, CONTEXT:]

    def distance(video, truth):
        return np.abs(video - truth).mean(axis=(2, 3, 4))

    runs = [towards_grey(target, size) for size in (0.3, 0.1, 0.2)]
    scores, _ = score_best_of(runs, tiles, CONTEXT, distance)
    name = f"LPIPS of a free run, best of 3, mean of {target.shape[1]} frames"
    assert scores[name].mean == pytest.approx(0.1, abs=1e-3)


def test_ssim_with_gaussian_windows_is_the_published_formula_and_small_latents_have_none(tiles):
    first, second = tiles.video[0, 0].astype(np.float64), tiles.video[1, 3].astype(np.float64)

    def blur(values):
        return gaussian_filter(values, (0, 1.5, 1.5), truncate=3.5)[:, 5:-5, 5:-5]

    means = blur(first), blur(second)
    spread = [
        blur(one * other) - blur(one) * blur(other) for one in (first, second) for other in (first, second)
    ]
    luminance = (2 * means[0] * means[1] + 0.02**2) / (means[0] ** 2 + means[1] ** 2 + 0.02**2)
    contrast = (2 * spread[1] + 0.06**2) / (spread[0] + spread[3] + 0.06**2)
    assert ssim(first, second, gaussian=True) == pytest.approx((luminance * contrast).mean())
    small = Clips(tiles.video[..., :8, :8])
    scores, _ = score_best_of([small.video[:, CONTEXT:]], small, CONTEXT)
    assert not any("SSIM" in name for name in scores)
