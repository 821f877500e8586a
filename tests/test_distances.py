"""Frechet and kernel distance: against closed forms for Gaussians, and on features of a user's function."""

import json

import numpy as np
import pytest
import tiny

from framelens.training import evaluate
from framelens.training.distances import (
    frechet_distance,
    kernel_blocks,
    kernel_distance,
    measure_distances,
)

SHIFT = np.array([1.0, 0.0, -0.5])
SCALE = np.array([1.0, 2.0, 0.5])
KERNEL, FRECHET = "kernel distance (x 1000)", "Frechet distance"


def gaussians(clips, frames, seed=0):
    rng = np.random.default_rng(seed)
    one, other = rng.normal(size=(2, clips, frames, 3))
    return one, SHIFT + SCALE * other


def expected_kernel(mean, scale, mean2, scale2):
    """E (x . y / d + 1)^3 of independent Gaussians with diagonal covariances, by quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(6)
    weights = weights / weights.sum()
    grid = np.stack(np.meshgrid(nodes, nodes, nodes, indexing="ij"), -1).reshape(-1, 3)
    mass = np.prod(np.stack(np.meshgrid(weights, weights, weights, indexing="ij"), -1).reshape(-1, 3), axis=1)
    x, y = mean + scale * grid, mean2 + scale2 * grid
    return float(mass @ (x @ y.T / 3 + 1) ** 3 @ mass)


def test_the_frechet_distance_of_two_gaussians_is_the_closed_form():
    one, other = (values.reshape(-1, 3) for values in gaussians(2000, 20))
    expected = (SHIFT**2).sum() + ((SCALE - 1) ** 2).sum()
    assert frechet_distance(one, other) == pytest.approx(expected, rel=0.02)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-9)


def test_the_kernel_distance_of_two_gaussians_is_unbiased():
    zero, ones = np.zeros(3), np.ones(3)
    expected = (
        expected_kernel(zero, ones, zero, ones)
        + expected_kernel(SHIFT, SCALE, SHIFT, SCALE)
        - 2 * expected_kernel(zero, ones, SHIFT, SCALE)
    )
    found = [kernel_distance(kernel_blocks(*gaussians(10, 4, seed)), np.ones(10)) for seed in range(1500)]
    assert abs(np.mean(found) - expected) < 4 * np.std(found) / np.sqrt(len(found))
    assert np.std(found) / np.sqrt(len(found)) < 0.05 * expected


def test_clips_of_one_distribution_are_as_often_below_0_as_above_however_alike_their_frames_are():
    rng, found = np.random.default_rng(3), []
    for _ in range(600):
        alike = rng.normal(size=(2, 8, 1, 3)) + 0.1 * rng.normal(size=(2, 8, 5, 3))
        found.append(kernel_distance(kernel_blocks(*alike), np.ones(8)))
    assert abs(np.mean(found)) < 4 * np.std(found) / np.sqrt(len(found))


def test_distances_have_bootstrap_intervals_from_five_clips_on():
    one, other = gaussians(12, 6)
    for measure in measure_distances(one, other).values():
        assert measure.low < measure.mean < measure.high and measure.clips == 12
    assert all(measure.low is None for measure in measure_distances(one[:4], other[:4]).values())


SOURCE = """
import torch

class Means(torch.nn.Module):
    def forward(self, frames):
        return frames.mean(dim=(2, 3))

def load():
    return Means()

def wide():
    return lambda frames: frames.flatten(1)

def endless():
    return lambda frames: frames.mean(dim=(2, 3)) / 0

def flat():
    return lambda frames: frames.mean()

def broken():
    return lambda frames: frames @ torch.zeros(3, 7)

def nothing():
    return 3
"""


@pytest.fixture
def request_of(tmp_path):
    model = tiny.checkpoint(tmp_path / "model.safetensors", frames=4)
    (tmp_path / "own.py").write_text(SOURCE)

    def of(function, clips=5):
        sizes = ["--clips", str(clips), "--steps", "1", "--context", "2"]
        features = f"{tmp_path / 'own.py'}:{function}"
        return ["--model", str(model), *sizes, "--features", features, "--out", str(tmp_path / "scores.json")]

    return of


def test_distances_on_features_of_a_function_are_scored_and_kept(request_of, tmp_path, capsys):
    assert evaluate.main(request_of("load")) == 0
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    held = json.loads((tmp_path / "scores.json").read_text())
    (measures,) = held["measures"].values()
    for distance in (FRECHET, KERNEL):
        for what in ("frames", "differences of frames"):
            name = f"{distance} of {what}, free run"
            assert printed[name] == measures[name]["mean"] and measures[name]["low"] < measures[name]["high"]
    used = held["features"]
    assert (used["features"], used["frames"], used["clips"]) == (3, 10, 5)
    assert list(used["sha256"]) == ["own.py"]


@pytest.mark.parametrize(
    ("function", "clips", "message"),
    [
        ("wide", 5, "1200 numbers for each frame"),
        ("load", 1, "two clips or more"),
        ("endless", 5, "not finite"),
        ("flat", 5, "expected features [b d]"),
        ("broken", 5, "what it gave raised RuntimeError"),
        ("nothing", 5, "gave a int, expected a torch module"),
        ("absent", 5, "has no function 'absent'"),
    ],
)
def test_features_that_cannot_be_compared_get_one_line(
    request_of, tmp_path, capsys, function, clips, message
):
    assert evaluate.main(request_of(function, clips)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line and not (tmp_path / "scores.json").exists()


def test_features_are_a_function_of_a_file(request_of, capsys):
    request = request_of("load")
    request[request.index("--features") + 1] = "resnet"
    assert evaluate.main(request) == 2
    assert "--features is FILE.py:FUNCTION, got 'resnet'" in capsys.readouterr().err
