"""Every mistake of the caller gets exit status 2, one line that says what to do, and no results."""

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

from framelens import models
from framelens.models import dense
from framelens.models.loading import checkpoint as checkpoint_files
from framelens.probes import experiments
from framelens.probes.__main__ import main as probes_main
from framelens.training import recipes, trainer
from framelens.training.__main__ import main as training_main
from framelens.videos import files

ROOT = Path(__file__).parents[1]
SMALL = "--clips 1 --steps 2 --frames 5 --context 3 --probed 2 --workers 1 --run trial".split()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny.checkpoint(tmp_path_factory.mktemp("models") / "tiny.safetensors")


@pytest.fixture(scope="module")
def footage(tmp_path_factory):
    """A film of 12 frames, a text that claims to be one, and an empty folder."""
    folder = tmp_path_factory.mktemp("footage")
    files.write(folder / "film.gif", np.tanh(tiny.draw(12, 3, 16, 16).numpy()))
    (folder / "broken.mp4").write_text("no film\n" * 50)
    (folder / "notes.txt").write_text("no film\n")
    (folder / "empty").mkdir()
    return folder


def complaint(capsys, program):
    """What a command says on stderr beside its progress bar: one line."""
    lines = [line for line in capsys.readouterr().err.replace("\r", "\n").splitlines() if line]
    (line,) = [line for line in lines if "%|" not in line]
    assert line.startswith(f"framelens {program}: ")
    return line


def results(out):
    """Files that could be taken for results."""
    found = [file for pattern in ("*.nc", "*.html") for file in out.rglob(pattern)]
    manifests = [file for file in out.rglob("manifest.json") if '"complete": true' in file.read_text()]
    return found + manifests + [clip for clip in out.rglob("clips/*") if clip.is_dir()]


# framelens probe


@pytest.fixture
def refused(checkpoint, tmp_path, capsys):
    """Runs the probe with wrong arguments, a later option overriding an earlier one; gives the complaint."""

    def run(*arguments, model=checkpoint, out=tmp_path / "runs"):
        status = probes_main(["--model", str(model), "--out", str(out), *SMALL, *map(str, arguments)])
        assert status == 2
        assert not results(tmp_path)
        return complaint(capsys, "probe")

    return run


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--clips", 0], "--clips.* 1.* 0"),
        (["--steps", 0], "--steps.* 1.* 0"),
        (["--steps", -3], "--steps.* 1.* -3"),
        (["--probed", 0], "--probed.* 1.* 0"),
        (["--context", 0], "--context.* 1.* 0"),
        (["--queries", 1], "--queries.* 2.* 1"),
        (["--seed", -1], "--seed.* 0.* -1"),
        (["--workers", 0], "--workers.* 1.* 0"),
        (["--shift", 0], "--shift"),
        (["--shift", "nan"], "--shift"),
        (["--shift", "inf"], "--shift"),
        (["--frames", 3], "--frames.*--context 3.* 3"),
        (["--frames", 0], "--frames.*--context 3.* 0"),
        (["--frames", -1], "--frames.*--context 3.* -1"),
        (
            ["--statistics", "entropies"],
            "'entropies'.*block_norms, feature_pca",
        ),
        (["--device", "gpu"], "'gpu'.*cpu.*cuda:0"),
        (["--device", "mps"], "'mps'"),
        (["--dtype", "float8"], "'float8'.*float32, bfloat16, float16"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(refused, arguments, message):
    assert re.search(message, refused(*arguments))


def test_a_gpu_that_is_not_there_is_refused(refused, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "--device cpu" in refused("--device", "cuda")


def test_a_model_that_is_not_there_is_refused(refused, tmp_path):
    assert "'tinny'" in refused(model="tinny")
    assert "none.safetensors" in refused(model=tmp_path / "none.safetensors")
    half = tmp_path / "half.safetensors"
    half.write_bytes(tiny.checkpoint(tmp_path / "whole.safetensors").read_bytes()[:1000])
    assert str(half) in refused(model=half)


def test_a_misspelt_model_is_answered_at_once_and_by_the_exit_status(tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            "-X",
            "importtime",
            "-m",
            "framelens.probes",
            "--model",
            "tinny",
            "--out",
            tmp_path / "runs",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )
    imported = {
        line.split("|")[-1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")
    }
    said = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert done.returncode == 2 and len(said) == 1
    assert said[0].startswith("framelens probe: ") and "'tinny'" in said[0]
    assert "torch" not in imported and not (tmp_path / "runs").exists()


def test_a_context_as_long_as_the_clips_of_training_is_refused(checkpoint, tmp_path, capsys):
    small = [argument for argument in SMALL if argument not in ("--frames", "5")]
    for context in ("6", "9"):
        arguments = ["--model", str(checkpoint), "--out", str(tmp_path), *small, "--context", context]
        assert probes_main(arguments) == 2
        assert "--context" in complaint(capsys, "probe") and not results(tmp_path)


def test_videos_that_cannot_be_read_are_refused(refused, footage):
    for name in ("nowhere", "broken.mp4", "notes.txt", "empty"):
        assert str(footage / name) in refused("--videos", footage / name)
    assert ".mp4, .webm" in refused("--videos", footage / "notes.txt")


def test_videos_that_are_too_short_or_too_few_are_refused(refused, footage):
    film = footage / "film.gif"
    assert re.search(rf"{re.escape(str(film))}.* 12 .* 13", refused("--videos", film, "--frames", 13))
    line = refused("--videos", film, "--clips", 2)
    assert re.search(rf"{re.escape(str(film))}.* 2 .* 2 .*--clips", line)


def test_videos_of_another_size_are_refused(refused, tmp_path, footage):
    line = refused("--videos", "digits")
    assert re.search(r"digits.*\(1, 16, 16\).*\(3, 20, 20\)", line)
    grey = tiny.checkpoint(tmp_path / "grey.safetensors", tiny.model(channels=1), videos="digits")
    line = refused("--videos", footage / "film.gif", model=grey)
    assert re.search(r"\(3, 8, 8\).*\(1, 8, 8\)", line)


def test_a_place_that_cannot_be_written_is_named(refused, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    line = refused(out=tmp_path / "file" / "runs")
    assert str(tmp_path / "file" / "runs") in line


def no_space(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.slow
def test_a_full_disk_leaves_no_half_written_clip(refused, monkeypatch, tmp_path):
    write = Path.write_bytes

    def half(path, content):
        write(path, content[:100])
        no_space()

    monkeypatch.setattr(Path, "write_bytes", half)
    assert "No space left on device" in refused("--statistics", "block_norms")
    assert not list((tmp_path / "runs").rglob("partial*"))


def test_a_disk_that_is_full_at_the_manifest_leaves_none(refused, monkeypatch, tmp_path):
    monkeypatch.setattr(Path, "write_text", no_space)
    assert "No space left on device" in refused()
    assert not [file for file in (tmp_path / "runs").rglob("*") if file.is_file()]


@pytest.mark.parametrize(
    ("weight", "value"), [("blocks.1.mlp.0.weight", torch.nan), ("embed.bias", torch.inf)]
)
@pytest.mark.parametrize("experiment", ["rollouts", "noise_invariance", "readout", "known_state"])
def test_weights_that_are_not_numbers_are_named(refused, tmp_path, weight, value, experiment):
    network = tiny.model(**tiny.TILES)
    network.state_dict()[weight].view(-1)[0] = value
    broken = tiny.checkpoint(tmp_path / "broken.safetensors", network)
    line = refused("--experiments", experiment, model=broken)
    assert "not finite" in line and weight in line and str(broken) in line


EXPERIMENTS = [name for name in experiments.names() if name != "mask_drift"]
"""All but the one for networks that make a whole clip at once."""


@pytest.mark.slow
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_values_that_become_infinite_in_a_network_are_refused_by_every_experiment(
    refused, tmp_path, experiment
):
    network = tiny.model(**tiny.TILES)
    network.blocks[1].mlp[0].weight.mul_(1e30)
    network.blocks[1].mlp[-1].weight.mul_(1e30)
    large = tiny.checkpoint(tmp_path / "large.safetensors", network)
    line = refused("--experiments", experiment, model=large)
    assert re.search(r"not finite .*blocks\.1\..* pass, frame \d.*weights: none", line)


def test_a_configuration_that_is_not_of_numbers_is_named(refused, tmp_path):
    network = tiny.model(**tiny.TILES)
    about = tiny.metadata(network)
    about["config"] |= {"rope_theta": float("nan")}
    file = tmp_path / "broken.safetensors"
    checkpoint_files.write(file, network.state_dict(), about)
    assert re.search(f"{file}: .*rope_theta=nan", refused(model=file))


def test_numbers_are_asked_for_where_numbers_belong(capsys):
    for program in (probes_main, training_main):
        with pytest.raises(SystemExit) as stop:
            program(["--steps", "many"])
        assert stop.value.code == 2
        assert (
            capsys.readouterr().err.splitlines()[-1].endswith("argument --steps: invalid int value: 'many'")
        )


# framelens train


@pytest.fixture(autouse=True)
def short_training(monkeypatch):
    """A recipe of two steps."""
    monkeypatch.setitem(dense.PRESETS, "test", tiny.config())
    small = recipes.Recipe("dense", "tiles", "test", steps=2, batch=1, frames=3)
    monkeypatch.setitem(recipes.RECIPES, "short", small)
    monkeypatch.setattr(trainer, "VALIDATION_CLIPS", 4)


@pytest.fixture
def untrained(tmp_path, capsys):
    """Trains with wrong arguments; gives the complaint."""

    def run(*arguments, out=tmp_path / "train"):
        assert training_main(["--model", "short", "--out", str(out), *map(str, arguments)]) == 2
        assert not list(tmp_path.rglob("model.safetensors"))
        return complaint(capsys, "train")

    return run


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "dense"], "'dense'.*dense-tiles, dense-digits"),
        (["--steps", 0], "--steps.* 1.* 0"),
        (["--steps", -1], "--steps.* 1.* -1"),
        (["--batch", 0], "--batch.* 1.* 0"),
        (["--threads", 0], "--threads.* 1.* 0"),
        (["--threads", -1], "--threads.* 1.* -1"),
        (["--device", "gpu"], "'gpu'.*cpu.*cuda:0"),
        (["--device", "mps"], "'mps'.*cpu.*cuda"),
    ],
)
def test_a_training_that_cannot_be_is_refused_before_it_leaves_a_trace(
    untrained, tmp_path, arguments, message
):
    assert re.search(message, untrained(*arguments))
    assert not (tmp_path / "train").exists()


def test_a_training_without_its_gpu_is_refused(untrained, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "--device cpu" in untrained("--device", "cuda:0")


def test_a_folder_of_another_training_is_refused(tmp_path, untrained, capsys, monkeypatch):
    def stop(run):
        raise KeyboardInterrupt

    out = tmp_path / "train"
    with monkeypatch.context() as patch:
        patch.setattr(trainer.Training, "advance", stop)
        assert training_main(["--model", "short", "--out", str(out)]) == 130
    assert complaint(capsys, "train")
    line = untrained("--steps", 3)
    assert re.search(rf"{re.escape(str(out))}.*steps=2.* 3.*--out", line)
    (out / "state.pt").write_bytes(b"half")
    assert str(out / "state.pt") in untrained()


def test_a_training_that_cannot_write_says_where(untrained, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    assert str(tmp_path / "file" / "train") in untrained(out=tmp_path / "file" / "train")
    monkeypatch.setattr(torch, "save", no_space)
    assert "No space left on device" in untrained()


def test_shipped_names_are_offered(refused, checkpoint, monkeypatch):
    monkeypatch.setattr(models, "WEIGHTS", checkpoint.parent)
    assert re.search("'tinny'.* tiny\\b", refused(model="tinny"))
