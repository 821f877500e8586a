"""The comparison at an equal budget: every arm trained, timed and scored on the same clips."""

import json
import re

import numpy as np
import pytest
import torch
import xarray as xr

from framelens.training import arms as arms_file
from framelens.training import compare, trainer
from framelens.training import scores as training_scores
from framelens.training.arms import ARMS, recipe_of
from framelens.training.build import build
from framelens.training.state import TrainingFolder
from framelens.videos import scores, worlds
from framelens.videos.worlds import digits, tiles

CHOSEN = ["dense 12", "prefix 8+4"]


@pytest.fixture
def small(monkeypatch):
    """Two-layer networks, clips of 5 frames, a short validation."""
    tiny = {"d_model": 16, "heads": 2, "rope_axes": (4, 2, 2)}
    arms = {
        "dense 12": {"layers": 1},
        "prefix 8+4": ARMS["prefix 8+4"] | {"encoder_layers": 1, "decoder_layers": 1},
        "add 8+4": ARMS["add 8+4"] | {"encoder_layers": 1, "decoder_layers": 1},
    }
    monkeypatch.setattr(arms_file, "SMALL", tiny)
    monkeypatch.setattr(arms_file, "ARMS", arms)
    monkeypatch.setattr(
        trainer, "measure_validation_loss", lambda *_: dict.fromkeys(trainer.VALIDATION_SIGMAS, 0.5)
    )
    monkeypatch.setattr(TrainingFolder, "_write_sample", lambda folder, run: None)


def run(out, *more):
    command = ["--videos", "digits", "--steps", "2", "--clips", "2", "--rounds", "2", "--out", str(out)]
    return compare.main([*command, "--arms", *CHOSEN, *more])


@pytest.mark.slow
def test_every_arm_is_trained_timed_and_scored(tmp_path, small, capsys):
    assert run(tmp_path, "--seeds", "2") == 0
    assert capsys.readouterr().out.strip() == str(tmp_path)
    result = xr.load_dataset(tmp_path / "compare.nc", engine="netcdf4")
    assert result.attrs["command"].startswith("framelens compare-train ") and result.attrs["seed"] == 0
    assert dict(result.sizes) == {
        "arm": 2, "seed": 2, "sampling": 4, "clip": 2, "frame": 5, "checkpoint": 2, "sigma": 6, "round": 2
    }  # fmt: skip
    assert result.arm.values.tolist() == CHOSEN and result.checkpoint.values.tolist() == [0, 2]
    assert (
        (result.step_seconds > 0).all() and result.psnr.notnull().all() and result.state_error.notnull().all()
    )
    copies = result.psnr.sel(sampling="copy")
    assert np.ptp(copies.values, axis=(0, 1)).max() == 0, "what is copied does not depend on the network"
    assert not np.allclose(*(result.psnr.sel(sampling="free_running", seed=seed) for seed in (0, 1)))
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["complete"] and manifest["kind"] == "compare" and manifest["settings"]["steps"] == 2


def held(out):
    """Every file of a folder with its content and the time of its last change."""
    return {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in out.rglob("*") if file.is_file()}


@pytest.mark.slow
def test_a_comparison_that_was_stopped_trains_only_what_is_missing(tmp_path, small):
    assert run(tmp_path) == 0
    before = held(tmp_path / "arms")
    removed = tmp_path / "arms" / "prefix-8+4" / "0" / "model.safetensors"
    removed.unlink()
    assert run(tmp_path) == 0
    after = held(tmp_path / "arms")
    assert after.keys() == before.keys() and after[removed] != before[removed]
    for file in before:
        assert "prefix-8+4" in str(file) or after[file] == before[file]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "difference"),
    [
        (["--steps", "3"], "steps=2, not 3"),
        (["--videos", "tiles"], "videos=digits, not tiles"),
        (["--steps", "3", "--arms", "add 8+4", "dense 12"], "steps=2, not 3"),
    ],
)
def test_networks_of_another_recipe_are_never_scored(tmp_path, small, capsys, more, difference):
    assert run(tmp_path) == 0
    before = held(tmp_path)
    capsys.readouterr()
    assert run(tmp_path, *more) == 2
    said = capsys.readouterr()
    assert difference in said.err and said.err.count("\n") == 1 and said.out == ""
    assert held(tmp_path) == before


@pytest.mark.slow
def test_a_seed_is_the_first_training_seed_and_decides_the_noise(tmp_path, small):
    assert run(tmp_path / "a", "--seeds", "2") == 0 and run(tmp_path / "b", "--seed", "1") == 0
    a, b = (xr.load_dataset(tmp_path / name / "compare.nc", engine="netcdf4") for name in "ab")
    assert a.seed.values.tolist() == [0, 1] and b.seed.values.tolist() == [1]
    assert np.array_equal(a.loss.sel(seed=1), b.loss.sel(seed=1))
    sampled = {"sampling": "free_running", "seed": 1}
    assert not np.array_equal(a.psnr.sel(sampled), b.psnr.sel(sampled)), "of the same network, other noise"
    assert json.loads((tmp_path / "b" / "manifest.json").read_text())["settings"]["seed"] == 1


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--arms", "dense"], r"'dense'.*dense 12, prefix 8\+4"),
        (["--steps", "0"], "--steps.* 1.* 0"),
        (["--seed", "-1"], "--seed.* 0.* -1"),
        (["--videos", "films"], "'films'"),
        (["--device", "cuda"], "CUDA"),
    ],
)
def test_what_cannot_be_compared_is_one_line(tmp_path, capsys, options, line):
    if "cuda" in options and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert compare.main([*options, "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert re.search(line, error) and error.count("\n") == 1 and not (tmp_path / "run").exists()


def test_all_arms_have_the_same_budget_and_nearly_the_same_size():
    recipes = [recipe_of(arm, "tiles", 0, 500) for arm in ARMS]
    fair = (
        "videos",
        "steps",
        "batch",
        "frames",
        "learning_rate",
        "muon",
        "muon_learning_rate",
        "ema",
        "seed",
    )
    assert all(len({getattr(recipe, name) for recipe in recipes}) == 1 for name in fair)
    sizes = [sum(weight.numel() for weight in build(recipe).parameters()) for recipe in recipes]
    assert max(sizes) < 1.05 * min(sizes)


def test_a_step_is_timed_as_often_as_asked(small):
    seconds = training_scores.time_steps([recipe_of(arm, "digits", 0, 9) for arm in CHOSEN], 3, "cpu")
    assert seconds.shape == (2, 3) and (seconds > 0).all()


# What a frame shows


@pytest.mark.parametrize("world", [tiles, digits])
def test_the_truth_has_no_error_and_another_frame_has_one(world):
    clips = world.clips(range(4), 6)
    assert world.state_error(clips.video, clips.state).max() < 1e-5
    wrong = world.state_error(np.roll(clips.video, 3, axis=1), clips.state)
    assert wrong.mean() > 0.5


def test_a_step_of_the_agent_is_an_error_of_one_tile():
    clips = tiles.clips(range(20), 2)
    moved = clips.actions[:, 1] > 0
    still = clips.video.copy()
    still[:, 1] = still[:, 0]
    error = tiles.state_error(still, clips.state)
    assert error[:, 1].tolist() == moved.astype(float).tolist()


def test_a_shift_of_the_ink_is_an_error_of_as_many_pixels():
    frame = np.full((1, 1, 1, 16, 16), -1.0, np.float32)
    frame[..., 5:8, 5:8] = 1
    there = {"ink_centre": digits._centre(frame)}
    assert digits.state_error(np.roll(frame, 2, axis=-1), there)[0, 0] == pytest.approx(2, abs=0.01)


def test_scores_know_equal_frames_and_order_worse_ones():
    truth = worlds.load("tiles").clips([0], 3).video[0]
    noise = np.random.default_rng(0).standard_normal(truth.shape).astype(np.float32)
    near, far = truth + 0.05 * noise, truth + 0.5 * noise
    for score in (scores.psnr, scores.ssim):
        assert score(truth, truth).shape == (3,)
        assert (score(truth, truth) > score(near, truth)).all() and (
            score(near, truth) > score(far, truth)
        ).all()
    assert scores.ssim(truth, truth) == pytest.approx(1)
    assert scores.psnr(truth + 0.2, truth.clip(-1, 0.8))[0] < 40
