"""LPIPS with weights from a file: as torchmetrics measures it, and refused with those of another network."""

import json

import numpy as np
import pytest
import tiny
import torch

from framelens.training import evaluate
from framelens.training import perceptual as measured
from framelens.training.perceptual import open_perceptual

CPU = "cpu"
NETWORKS = {"alex": measured._alexnet, "vgg": measured._vgg16}


def weights(kind):
    """Weights of that network, and of a last layer, as torchvision names them."""
    generator = torch.Generator().manual_seed(0)
    own = NETWORKS[kind]().state_dict()
    drawn = {f"features.{name}": 0.05 * torch.randn(w.shape, generator=generator) for name, w in own.items()}
    return drawn | {"classifier.6.bias": torch.zeros(1000)}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("lpips") / "alexnet.pth"
    torch.save(weights("alex"), path)
    return path


def frames(channels=3, side=64, seed=0, count=2):
    return np.random.default_rng(seed).uniform(-1, 1, (2, count, channels, side, side)).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("kind", NETWORKS)
def test_lpips_is_what_torchmetrics_measures_with_these_weights(kind, tmp_path, monkeypatch):
    torch.save(weights(kind), tmp_path / "weights.pth")
    network = open_perceptual(tmp_path / "weights.pth", CPU)
    from torchmetrics.functional.image import lpips

    monkeypatch.setattr(lpips, "_get_tv_model_features", lambda *_: network.backbone)
    reference = lpips._LPIPS(net=kind)
    one, other = frames(count=1), frames(count=1, seed=1)
    expected = reference(*(torch.from_numpy(video).flatten(0, 1) for video in (one, other)))
    found = network.measure(one, other)
    np.testing.assert_allclose(found, expected.numpy().reshape(found.shape), rtol=1e-4)
    assert (found > 0).all() and (network.measure(one, one) == 0).all()
    assert network.describe()["backbone"] == kind and len(network.describe()["sha256"]) == 64


def test_small_and_grey_frames_are_enlarged_and_repeated(file):
    network = open_perceptual(file, CPU)
    small, other = frames(1, 8), frames(1, 8, seed=1)
    repeated = (np.repeat(video, 3, axis=2) for video in (small, other))
    np.testing.assert_allclose(network.measure(small, other), network.measure(*repeated), rtol=1e-6)


def test_other_files_and_other_frames_are_named_in_one_line(file, tmp_path):
    with pytest.raises(FileNotFoundError, match="--lpips .*nowhere.pth does not exist; expected .*AlexNet"):
        open_perceptual(tmp_path / "nowhere.pth", CPU)
    held = torch.load(file)
    for other in (
        held | {"features.3.weight": torch.zeros(3, 3)},
        {"conv1.weight": torch.zeros(64, 3, 7, 7)},
    ):
        torch.save(other, tmp_path / "other.pth")
        with pytest.raises(ValueError, match="--lpips .*other.pth holds the weights of another network"):
            open_perceptual(tmp_path / "other.pth", CPU)
    with pytest.raises(ValueError, match="--lpips: it takes frames of 1 or 3 channels, got 16"):
        open_perceptual(file, CPU).measure(frames(16), frames(16))


def test_without_torchmetrics_one_line_says_what_to_install(file, monkeypatch):
    monkeypatch.setattr(measured.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"torchmetrics is not installed: pip install .framelens\[scores\]"):
        open_perceptual(file, CPU)


def test_evaluate_prints_lpips_and_keeps_what_it_was_measured_with(file, tmp_path, capsys):
    model, out = tiny.checkpoint(tmp_path / "model.safetensors", frames=4), tmp_path / "scores.json"
    sizes = ["--clips", "2", "--steps", "1", "--context", "2", "--best-of", "2"]
    assert evaluate.main(["--model", str(model), *sizes, "--lpips", str(file), "--out", str(out)]) == 0
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    wanted = {"LPIPS of the model", "LPIPS of the copy of the last frame", "LPIPS of a free run, last frame"}
    assert wanted | {"LPIPS of a free run, best of 2, mean of 2 frames"} <= printed.keys()
    held = json.loads(out.read_text())
    assert held["lpips"]["file"] == "alexnet.pth" and held["settings"]["lpips"] == str(file)
    assert evaluate.main(["--model", str(model), *sizes, "--lpips", "nowhere.pth"]) == 2
    assert capsys.readouterr().err.startswith("framelens evaluate: --lpips nowhere.pth does not exist")
