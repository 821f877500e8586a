"""Frechet and kernel distance: against closed forms for Gaussians, on features of networks."""

import json

import numpy as np
import pytest
import tiny
import torch
from skimage import data

from framelens.training import evaluate
from framelens.training.distances import (
    PLAIN,
    frechet_distance,
    has_covariance,
    kernel_blocks,
    kernel_distance,
    measure_distances,
    measure_frechet,
)
from framelens.training.packaged_features import EfficientNetFeatures

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


def test_distances_have_intervals_from_five_clips_on():
    one, other = gaussians(12, 6)
    measured = measure_distances(one, other)
    assert measured.pop(PLAIN).low is None
    for measure in measured.values():
        assert measure.low < measure.mean < measure.high and measure.clips == 12
    assert all(measure.low is None for measure in measure_distances(one[:4], other[:4]).values())


@pytest.mark.parametrize("alike", [0.0, 0.5])
def test_the_jackknife_removes_what_few_frames_add_to_the_frechet_distance(alike):
    rng, found, covered = np.random.default_rng(4), [], []
    for _ in range(40):
        one, other = alike * rng.normal(size=(2, 24, 1, 12)) + rng.normal(size=(2, 24, 6, 12))
        measured = measure_frechet(one + 2 * np.eye(12)[0], other)
        found.append([measured[FRECHET].mean, measured[PLAIN].mean])
        covered.append(measured[FRECHET].low < 4 < measured[FRECHET].high)
    corrected, plain = np.mean(found, axis=0) - 4
    assert abs(corrected) < 0.2 * plain and sum(covered) >= 35


def test_groups_of_unequal_size_extrapolate_alike():
    one, other = gaussians(41, 3)
    uneven, even = (measure_frechet(one[:n], other[:n])[FRECHET] for n in (41, 40))
    assert uneven.mean == pytest.approx(even.mean, rel=0.1)


def test_a_frechet_distance_needs_more_frames_than_features_in_what_the_jackknife_keeps():
    assert has_covariance(5, 2, 7) and not has_covariance(5, 2, 8)
    assert has_covariance(41, 1, 37) and not has_covariance(41, 1, 38)


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


def test_with_fewer_frames_than_features_the_kernel_distance_stands_alone(request_of, capsys):
    assert evaluate.main(request_of("wide")) == 0
    printed, said = capsys.readouterr()
    distances = [name for name in json.loads(printed.splitlines()[-1]) if name.startswith((KERNEL, FRECHET))]
    assert distances == [f"{KERNEL} of {what}, free run" for what in ("frames", "differences of frames")]
    assert "1200 numbers for each frame" in said and "raise --clips" in said


def test_features_are_of_a_known_network_or_a_function_of_a_file(request_of, capsys):
    request = request_of("load")
    request[request.index("--features") + 1] = "resnet"
    assert evaluate.main(request) == 2
    said = capsys.readouterr().err
    assert "--features is efficientnet-lite0 or FILE.py:FUNCTION, got 'resnet'" in said


@pytest.mark.slow
def test_the_packaged_network_sees_a_cat_and_a_cup_of_espresso():
    network = EfficientNetFeatures().eval()
    for picture, classes in ((data.chelsea(), {281, 282, 285}), (data.coffee(), {967})):
        square = picture[:, (picture.shape[1] - picture.shape[0]) // 2 :][:, : picture.shape[0]]
        frame = torch.from_numpy(square.copy()).permute(2, 0, 1)[None] / 127.5 - 1
        with torch.no_grad():
            assert int(network.network._fc(network(frame)).argmax()) in classes
    with pytest.raises(ValueError, match="1 or 3 channels, got 16"):
        network(torch.zeros(1, 16, 8, 8))
    with torch.no_grad():
        grey, colour = (network(torch.full((1, channels, 20, 20), 0.3)) for channels in (1, 3))
    assert torch.equal(grey, colour) and grey.shape == (1, 1280)


@pytest.mark.slow
def test_features_of_the_packaged_network_are_scored_with_the_hash_of_its_weights(
    request_of, tmp_path, capsys
):
    request = request_of("load", clips=2)
    request[request.index("--features") + 1] = "efficientnet-lite0"
    assert evaluate.main(request) == 0
    used = json.loads((tmp_path / "scores.json").read_text())["features"]
    assert used["features"] == 1280 and next(iter(used["sha256"].values())).startswith("57934424")
    assert f"{KERNEL} of frames, free run" in capsys.readouterr().out
