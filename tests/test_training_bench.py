"""The benchmark of a training step: layers that tokens pass through are counted, every network is timed."""

import json
import re

import pytest
from refusals import assert_refused

from framelens.benchmarks.scd.arms import network
from framelens.benchmarks.scd.presets import PRESETS
from framelens.benchmarks.trained_network import TrainedNetwork
from framelens.benchmarks.training import __main__ as command
from framelens.diffusion.contract import module_of

FEW = ["--preset", "tiny", "--frames", "2", "--repeats", "1"]


@pytest.mark.parametrize("arm", ["dense", *command.ARMS])
def test_the_layers_that_tokens_pass_through_are_counted_as_they_are(arm):
    preset, frames, draws = PRESETS["tiny"], 2, 1 if arm == "dense" else 3
    model = module_of(network(preset, arm, "cpu", "float32", 0))
    passed = []
    for name, module in model.named_modules():
        if re.search(r"blocks\.\d+$", name):
            module.register_forward_hook(lambda block, given, out: passed.append(out.shape[0] * out.shape[1]))
    TrainedNetwork(model, preset.dense, frames, "cpu", batch=1, draws=draws).advance()
    tokens = frames * (preset.dense.height // preset.dense.patch) ** 2
    assert sum(passed) == tokens * command.layer_passes(preset, arm, draws)


@pytest.mark.slow
def test_every_network_is_timed_and_nothing_is_overwritten(tmp_path, capsys):
    asked = [*FEW, "--arms", "prefix", "asking", "--out", str(tmp_path)]
    assert command.main(asked) == 0
    document = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert document == json.loads((tmp_path / command.FILE).read_text())
    assert list(document["arms"]) == ["dense", "prefix", "asking"]
    assert document["arms"]["dense"]["ratio"]["wall_seconds"]["median"] == 1
    assert all(row["ratio"]["cpu_seconds"]["median"] > 0 for row in document["arms"].values())
    assert command.main(asked) == 2 and "--out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "stated"),
    [
        (["--draws", "0"], "--draws .* 1"),
        (["--arms", "dense"], "no arm .* 'dense'"),
        (["--preset", "x"], "'?x'?"),
        (["--device", "cuda:99"], "cuda"),
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments, stated, tmp_path, capsys):
    assert_refused(command.main, [*FEW, *arguments], stated, capsys, tmp_path / "out")
