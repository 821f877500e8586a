"""framelens evaluate --checkpoints: each checkpoint is scored once; files that do not fit are refused."""

import json
import shutil

import fake_training
import pytest

from framelens.records.trainings import SCORES, find_checkpoints, find_training, name_checkpoint
from framelens.reports.score_table import format_scores
from framelens.training import evaluate

SHORT = ["--clips", "1", "--steps", "1", "--context", "2"]
PSNR = "PSNR of the model (dB)"


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """A training of two checkpoints, scored."""
    training = fake_training.write(tmp_path_factory.mktemp("train") / "a")
    assert score(training) == 0
    return training


@pytest.fixture
def training(scored, tmp_path):
    """A copy of it that a test may change."""
    return shutil.copytree(scored, tmp_path / "a")


def score(training, *more):
    return evaluate.main(["--checkpoints", str(training), *SHORT, *more])


def read(training):
    return json.loads((training / SCORES).read_text())


def refusal(capsys, *arguments):
    assert score(*arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("framelens evaluate: ") and error.count("\n") == 1
    return error


@pytest.mark.slow
def test_every_checkpoint_has_the_scores_that_it_has_alone(scored, capsys):
    held = read(scored)
    assert list(held["scores"]) == ["step-000000", "step-000020"]
    for step, name in zip((0, 20), held["scores"], strict=True):
        assert evaluate.main(["--model", str(name_checkpoint(scored, step)), *SHORT]) == 0
        assert json.loads(capsys.readouterr().out.splitlines()[-1]) == held["scores"][name]
        assert held["models"][name]["training"]["step"] == step and held["models"][name]["sha256"]
    assert held["settings"]["seed"] == 0 and held["command"].startswith("framelens evaluate --checkpoints")


@pytest.mark.slow
def test_the_file_is_a_table_of_scores(scored):
    assert format_scores([scored / SCORES]).startswith("| score | step-000000 | step-000020 |")


@pytest.mark.slow
def test_only_checkpoints_without_scores_are_scored(training, monkeypatch):
    before, asked, real = read(training), [], evaluate.evaluate
    monkeypatch.setattr(
        evaluate,
        "evaluate",
        lambda network, **more: asked.append(network.source.file) or real(network, **more),
    )
    assert score(training / "checkpoints") == 0 and asked == []
    shutil.copy(name_checkpoint(training, 0), name_checkpoint(training, 40))
    assert score(training) == 0 and asked == [name_checkpoint(training, 40)]
    now = read(training)
    assert {name: now["measures"][name] for name in before["measures"]} == before["measures"]
    shutil.copy(name_checkpoint(training, 0), name_checkpoint(training, 20))
    assert score(training) == 0 and asked[1:] == [name_checkpoint(training, 20)]
    assert read(training)["scores"]["step-000020"] == now["scores"]["step-000000"]


@pytest.mark.slow
def test_what_was_scored_before_a_stop_is_kept(training, monkeypatch):
    (training / SCORES).unlink()
    real = evaluate.evaluate

    def stop(network, **more):
        if network.source.file == name_checkpoint(training, 20):
            raise KeyboardInterrupt
        return real(network, **more)

    monkeypatch.setattr(evaluate, "evaluate", stop)
    assert score(training) == 130
    assert list(read(training)["scores"]) == ["step-000000"]


@pytest.mark.slow
def test_other_settings_another_training_and_another_file_are_refused(training, capsys):
    before = (training / SCORES).read_bytes()
    assert "was made with clips 1, not 2" in refusal(capsys, training, "--clips", "2")
    assert (training / SCORES).read_bytes() == before
    fake_training.write(training, seed=3)
    assert "of another training, with seed 0, not 3" in refusal(capsys, training)
    (training / SCORES).write_text("{}")
    assert "is not a file of evaluate --checkpoints" in refusal(capsys, training)
    assert "holds no step-*.safetensors" in refusal(capsys, training / "none")
    assert "leave out --model" in refusal(capsys, training, "--model", "dense-tiles")


def test_checkpoints_are_found_by_step_from_either_folder(tmp_path):
    for step in (1_000_000, 200, 0):
        file = name_checkpoint(tmp_path, step)
        file.parent.mkdir(exist_ok=True)
        file.touch()
    found = find_checkpoints(tmp_path)
    assert found == [name_checkpoint(tmp_path, step) for step in (0, 200, 1_000_000)]
    assert find_checkpoints(tmp_path / "checkpoints") == found
    assert find_training(tmp_path / "checkpoints") == find_training(tmp_path) == tmp_path
