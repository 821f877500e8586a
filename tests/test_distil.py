"""Distillation to few steps: its loss, the decoder trained alone, and how students are sampled."""

import json
from dataclasses import replace

import pytest
import tiny
import torch
from safetensors.torch import load_file

from framelens import models
from framelens.diffusion.choose_sampling import choose_sampling
from framelens.diffusion.consistency import consistency_loss, predict_clean
from framelens.diffusion.schedule import Sampling, add_noise, sigma_grid
from framelens.models import dense, scd
from framelens.models.parts.scd_parallel import decode_clip, read_clip
from framelens.probes.__main__ import main as probe
from framelens.training import __main__ as command
from framelens.training import evaluate, loop
from framelens.training.build import build
from framelens.training.distil import Distillation
from framelens.training.recipes import Recipe, recipe
from framelens.training.state import TrainingFolder

LEVELS = 5


@pytest.fixture(autouse=True)
def small(monkeypatch):
    separated = scd.Config(
        **tiny.SHAPE, encoder_layers=1, decoder_layers=1, fusion="prefix", query="noise", start_token=False
    )
    monkeypatch.setitem(dense.PRESETS, "test", tiny.config())
    monkeypatch.setitem(scd.PRESETS, "test", separated)
    monkeypatch.setattr(TrainingFolder, "_write_sample", lambda folder, run: None)


@pytest.fixture
def teacher(tmp_path):
    """A trained separated network, as a checkpoint."""
    return str(loop.train(teaching("scd"), tmp_path / "teacher", "cpu", progress=False))


def teaching(network, **changes):
    settings = {"steps": 2, "batch": 2, "frames": 3, "keep_every": 2, "muon": False, "learning_rate": 1e-2}
    return Recipe(network, "tiles", "test", **settings | changes)


def student_of(teacher, **changes):
    return teaching("scd", initial=teacher, teacher=teacher, train_only="decoder", levels=LEVELS, **changes)


# The loss


def straight(clean, noise):
    """The velocity of paths that are straight lines from these clean frames to this noise."""
    return lambda noisy, sigma: noise - clean


def test_on_straight_paths_the_true_velocity_has_no_loss():
    clean, noise = torch.randn(2, 3, 1, 4, 4), torch.randn(2, 3, 1, 4, 4)
    networks = [straight(clean.double(), noise.double())] * 3
    loss = consistency_loss(
        *networks, clean.double(), noise.double(), torch.tensor([0, 3]), sigma_grid(LEVELS).double()
    )
    assert loss.shape == (2, 3) and loss.abs().max() < 1e-9


def test_the_loss_is_the_distance_to_where_the_teacher_leads():
    """A student that is off by one everywhere, at a level after which the teacher has arrived."""
    clean, noise = torch.randn(1, 2, 1, 4, 4).double(), torch.randn(1, 2, 1, 4, 4).double()
    true, grid = straight(clean, noise), sigma_grid(LEVELS).double()
    last = torch.tensor([LEVELS - 1])
    off = lambda noisy, sigma: true(noisy, sigma) + 1 / sigma[..., None, None, None]  # noqa: E731
    loss = consistency_loss(off, true, true, clean, noise, last, grid)
    soft = 0.00054 * 4
    assert torch.allclose(loss, torch.full_like(loss, (16 + soft**2) ** 0.5 - soft))


def test_at_noise_level_zero_the_prediction_is_the_frame_itself():
    clean = torch.randn(1, 2, 1, 4, 4)
    level = torch.zeros(1, 2)
    assert torch.equal(
        predict_clean(lambda noisy, sigma: torch.ones_like(noisy), add_noise(clean, clean, level), level),
        clean,
    )


# The training


def test_only_the_decoder_changes(teacher, tmp_path):
    weights = load_file(loop.train(student_of(teacher), tmp_path / "few", "cpu", progress=False))
    before = load_file(teacher)
    changed = {name for name in before if not torch.equal(before[name], weights[name])}
    assert changed and all(name.startswith("decoder.") for name in changed)


def test_the_decoder_alone_has_the_loss_of_the_whole_network(teacher):
    """The features of one encoder pass serve all three networks, as the same encoder in each would."""
    network = models.load(teacher)
    clean, noisy = torch.randn(2, 3, 3, 20, 20), torch.randn(2, 3, 3, 20, 20)
    sigma, cond = torch.full((2, 3), 0.7), torch.zeros(2, 3, dtype=torch.long)
    alone = decode_clip(network, read_clip(network, clean, cond), noisy, sigma, cond)
    assert torch.equal(alone, network.teacher_forced(clean, noisy, sigma, cond))


def test_a_stopped_distillation_goes_on_to_the_same_weights(teacher, tmp_path):
    chosen = student_of(teacher, steps=4, save_every=2)
    whole = load_file(loop.train(chosen, tmp_path / "whole", "cpu", progress=False))
    run = Distillation(chosen, build(chosen), "cpu")
    folder = TrainingFolder(tmp_path / "parts", chosen)
    for _ in range(2):
        run.advance()
    folder.save_state(run)
    parts = load_file(loop.train(chosen, tmp_path / "parts", "cpu", progress=False))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


# How students are sampled


def test_a_student_says_how_it_is_sampled_and_no_more_steps_than_levels(teacher, tmp_path, capsys):
    path = str(loop.train(student_of(teacher), tmp_path / "few", "cpu", progress=False))
    student = models.load(path)
    assert choose_sampling(student, None, 25) == Sampling(4, renoise=True)
    assert choose_sampling(student, 1, 25) == Sampling(1, renoise=True)
    assert choose_sampling(models.load(teacher), None, 25) == Sampling(25)
    again = tmp_path / "again.safetensors"
    models.save(student, again)
    assert models.load(str(again)).sampling == Sampling(4, renoise=True)
    assert evaluate.main(["--model", path, "--steps", "50", "--clips", "1", "--frames", "6"]) == 2
    assert f"distilled over {LEVELS} noise levels" in capsys.readouterr().err


def test_scores_of_a_student_are_those_of_its_own_steps(teacher, tmp_path, capsys):
    path = str(loop.train(student_of(teacher), tmp_path / "few", "cpu", progress=False))
    scores = []
    for steps in ([], ["--steps", "4"], ["--steps", "2"]):
        assert evaluate.main(["--model", path, "--clips", "1", "--frames", "6", *steps]) == 0
        scores.append(json.loads(capsys.readouterr().out.splitlines()[-1]))
    assert scores[0] == scores[1] != scores[2]


def test_a_probe_of_a_student_with_too_many_steps_is_refused(teacher, tmp_path, capsys):
    path = str(loop.train(student_of(teacher), tmp_path / "few", "cpu", progress=False))
    assert probe(["--model", path, "--steps", "50", "--out", str(tmp_path / "runs")]) == 2
    assert f"distilled over {LEVELS} noise levels" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


# Bad input


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"videos": "digits", "initial": ""}, "knows tiles, not digits"),
        ({"architecture": {"decoder_layers": 2}, "initial": ""}, "own architecture"),
        ({"network": "dense", "initial": ""}, "has no such part"),
        ({"teacher": "no-such-model"}, "no-such-model"),
    ],
)
def test_an_unsuitable_teacher_is_refused_before_anything_is_written(teacher, tmp_path, changes, message):
    chosen = replace(student_of(teacher), **changes)
    with pytest.raises(ValueError, match=message):
        loop.train(chosen, tmp_path / "few", "cpu", progress=False)
    assert not (tmp_path / "few").exists()


def test_a_student_is_no_teacher(teacher, tmp_path):
    path = str(loop.train(student_of(teacher), tmp_path / "few", "cpu", progress=False))
    with pytest.raises(ValueError, match="few-step student itself"):
        loop.train(student_of(path), tmp_path / "fewer", "cpu", progress=False)


def test_the_shipped_recipes_distil_what_they_start_from():
    for name in ("split-tiles-few", "dense-tiles-few"):
        assert recipe(name).teacher == recipe(name).initial == name.removesuffix("-few")
    assert (
        command._recipe(command.parser().parse_args(["--model", "split-tiles-few"])).train_only == "decoder"
    )
