"""The interventions as the command runs them: those that are named, on the layers that are requested."""

import re

import pytest
import tiny
import xarray as xr

from framelens.probes.__main__ import main
from framelens.probes.experiments import controls


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny.checkpoint(tmp_path_factory.mktemp("models") / "tiny.safetensors")


def run(checkpoint, out, *more):
    arguments = "--clips 2 --steps 3 --probed 1 --frames 3 --context 1 --workers 1 --run one".split()
    return main(["--model", str(checkpoint), "--out", str(out), *arguments, *more])


@pytest.mark.slow
def test_named_experiments_are_run_and_joined(checkpoint, tmp_path):
    assert (
        run(checkpoint, tmp_path, "--experiments", "controls", "skip", "--quick", "--layers", "1", "1") == 0
    )
    files = {file.stem: xr.load_dataset(file) for file in (tmp_path / "tiny" / "one").glob("*.nc")}
    assert set(files) == {"controls", "other_past", "skip"} and files["skip"].span.values.tolist() == ["1-1"]
    assert files["controls"].passed.dims == ("clip", "control") and files["controls"].sizes["clip"] == 2
    assert files["controls"].attrs["threshold"] == controls.THRESHOLD and "seconds" not in files["skip"].attrs
    assert files["skip"].attrs["steps"] == 3


@pytest.mark.parametrize(
    "more, message",
    [
        (["--layers", "0", "2"], "--layers 0 2 .*2 .* 0 .* 1"),
        (["--layers", "1", "0"], "--layers 1 0"),
        (["--layers", "-1", "1"], "--layers -1 1"),
        (["--starts", "2"], "--starts 2"),
        (["--experiments", "magic"], "'magic'.*controls, cut"),
    ],
)
def test_what_is_not_there_is_answered_in_one_line(checkpoint, tmp_path, capsys, more, message):
    assert run(checkpoint, tmp_path, *more) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(message, line)
