"""Every count of a command line has an upper bound or a look at the memory, before anything large is made."""

import re

import fake_run
import numpy as np
import pytest
import tiny

from framelens.models.loading import checkpoint as checkpoint_files
from framelens.models.loading.memory import require_room_for_clips
from framelens.probes.__main__ import main as probe
from framelens.probes.check.__main__ import main as check
from framelens.probes.estimate.__main__ import main as estimate
from framelens.probes.latents.__main__ import main as latents
from framelens.probes.plan.__main__ import _find_largest
from framelens.probes.plan.__main__ import main as plan
from framelens.training.__main__ import main as train
from framelens.training.compare import main as compare
from framelens.training.evaluate import main as evaluate
from framelens.videos import latents as latent_files

LARGE = str(10**20)
COUNTS = [
    (probe, "--clips --frames --context --probed --steps --seed --workers"),
    (estimate, "--clips --frames --context --probed --steps --seed --chunk"),
    (check, "--chunks --steps --seed"),
    (evaluate, "--clips --frames --context --steps --seed"),
    (train, "--steps --batch --seed --threads"),
    (compare, "--steps --seeds --clips --rounds --seed --threads"),
    (latents, "--frames --stride --clips --longest --rate"),
    (plan, "--steps --history --tokens --batch"),
]
NEEDED = {check: ["--model", "dense-tiles"], plan: ["--steps", "1", "--history", "1"]}


def refused(capsys, command, *arguments):
    """What a command says: one line, exit status 2."""
    assert command([*NEEDED.get(command, []), *map(str, arguments)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize(
    ("command", "option"), [(command, option) for command, options in COUNTS for option in options.split()]
)
@pytest.mark.parametrize("value", [LARGE, "-1"])
def test_a_count_that_is_too_large_or_negative_is_refused(
    capsys, tmp_path, monkeypatch, command, option, value
):
    monkeypatch.chdir(tmp_path)
    line = refused(capsys, command, option, value)
    assert re.search(rf"({option}|{option[2:]})\b.* (from|at most|exceed|positive)\b", line)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", ["inf", "nan", "1e30", "1e-9"])
def test_a_rate_that_no_film_has_is_refused(capsys, value):
    assert "--rate must be from" in refused(capsys, latents, "--rate", value)


@pytest.mark.parametrize("size", [("-16", "24"), ("16", "0"), ("16", LARGE)])
def test_a_size_that_no_film_has_is_refused(capsys, tmp_path, size):
    line = refused(
        capsys, latents, "--videos", tmp_path, "--out", tmp_path / "o.safetensors", "--size", *size
    )
    assert "--size must be from 1" in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", ["inf", "nan", "-1"])
def test_a_guidance_that_is_not_a_number_is_refused(capsys, value):
    assert "--guidance must be 0 or more and finite" in refused(capsys, evaluate, "--guidance", value)


@pytest.mark.parametrize("dtype", ["int8", "float64"])
def test_another_dtype_is_refused_before_anything_is_computed(capsys, dtype):
    assert "float32, bfloat16, float16" in refused(capsys, estimate, "--dtype", dtype)


def test_clips_that_do_not_fit_the_memory_are_refused_before_they_are_made(capsys, tmp_path):
    file = tiny.checkpoint(tmp_path / "tiny.safetensors")
    for command, more in ((probe, ["--out", tmp_path / "runs"]), (evaluate, ["--context", "2"])):
        line = refused(capsys, command, "--model", file, "--clips", 999_999, "--frames", 999_999, *more)
        assert re.search(r"clips of 999999 frames need \d{5,}\.\d GB, .*lower --clips", line)
    line = refused(capsys, train, "--set", "frames=999999", "--batch", 999_999, "--out", tmp_path / "train")
    assert "lower --batch" in line
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.safetensors"]
    require_room_for_clips(1, 10, (3, 20, 20), "--clips")


@pytest.mark.parametrize("frames", [10**9, -3, 2.5, "many", True])
def test_a_checkpoint_of_trainings_that_cannot_have_been_is_named(capsys, tmp_path, frames):
    network = tiny.model(**tiny.TILES)
    about = tiny.metadata(network) | {"training": {"recipe": {"frames": frames}}}
    file = tmp_path / "tiny.safetensors"
    checkpoint_files.write(file, network.state_dict(), about)
    for command, more in ((probe, ["--out", tmp_path / "runs"]), (evaluate, [])):
        line = refused(capsys, command, "--model", file, *more)
        assert f"{file} is damaged" in line and repr(frames) in line


def test_latents_that_float32_cannot_hold_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.full((1, 1, 1, 2, 2), 1e300))
    with pytest.raises(ValueError, match="a.npy: latents has values that are not finite in float32"):
        latent_files.read(tmp_path / "a.npy")


# An adapter that ends Python


LEAVING = {
    "at import": "import sys\nsys.exit(0)\n",
    "when it is called": "import sys\n\n\ndef load():\n    sys.exit()\n",
    "in a pass": (
        "import sys\nfrom framelens.models.adapter_template import Adapter, Net\n\n\n"
        "class Mine(Adapter):\n    def denoise(self, x, sigma, context):\n        sys.exit(0)\n\n\n"
        "def load():\n    return Mine(Net())\n"
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("when", LEAVING)
def test_an_adapter_that_calls_exit_does_not_end_a_command_as_if_it_had_succeeded(capsys, tmp_path, when):
    (tmp_path / "mine.py").write_text(LEAVING[when])
    model = ["--model", f"{tmp_path}/mine.py:load"]
    short = "--clips 1 --steps 1 --frames 5 --context 3 --probed 1 --workers 1".split()
    line = refused(capsys, probe, *model, *short, "--out", tmp_path / "runs")
    assert re.search(r"mine.py:load.*SystemExit at mine.py:\d", line)
    assert check(model) == (1 if when == "in a pass" else 2)
    assert "SystemExit" in "".join(capsys.readouterr())


# Runs that cannot be read


@pytest.mark.slow
def test_a_broken_manifest_is_named_and_does_not_stop_a_plan(tmp_path, capsys):
    whole = fake_run.write(tmp_path / "fake" / "whole", layers=3, steps=3, heads=2, clips=2)
    (tmp_path / "fake" / "broken").mkdir()
    broken = tmp_path / "fake" / "broken" / "manifest.json"
    broken.write_text("{")
    assert _find_largest("fake", "fake", tmp_path, {}) == whole
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"framelens plan: left out: {broken} is not valid JSON")
    (whole / "manifest.json").unlink()
    with pytest.raises(ValueError, match=re.escape(str(broken))):
        _find_largest("fake", "fake", tmp_path, {})
