"""What a run is estimated to take: its parts add up. (That each part is true is tested in test_costs.)"""

import re
from dataclasses import replace

import pytest
import tiny
import torch

from framelens.__main__ import main
from framelens.models.cost.presets import PRESETS
from framelens.probes import experiments
from framelens.probes.estimate.memory import room
from framelens.probes.estimate.presets import shape_of_preset
from framelens.probes.estimate.work import evaluations
from framelens.probes.run.settings import Settings
from framelens.probes.run.shape import RunShape

PLAIN = RunShape(
    layers=3, encoding_layers=3, heads=2, d_model=64, mlp_width=256, parameters=1_000_000, tokens=4, chunks=5,
    settings=Settings(
        clips=1, context=2, steps=3, frames=5, probed=2, statistics=("block_norms",), dtype="bfloat16"
    ),
)  # fmt: skip


def changed(**settings):
    return replace(PLAIN, settings=replace(PLAIN.settings, **settings))


def test_every_experiment_of_a_run_has_a_line():
    assert set(evaluations(PLAIN)) == {*experiments.names(), "chunk probe", "memory"}
    assert set(evaluations(changed(experiments=("readout",)))) == {"readout", "memory"}


def test_what_experiments_share_is_counted_once():
    def shared(*names):
        found = evaluations(changed(experiments=names))
        return found["chunk probe"], found["memory"]

    alone, others = shared("controls"), shared("reuse")
    together = shared("controls", "reuse")
    assert max(alone[0], others[0]) <= together[0] < alone[0] + others[0]
    assert together[1] == alone[1] > others[1], "the other clip's past is read once"
    assert shared("cut", "leave_one_out") == shared("cut")


@pytest.mark.parametrize("name", experiments.names())
def test_a_run_of_any_one_experiment_has_room(name):
    assert all(size >= 0 for size in room(changed(experiments=(name,))).values())


def test_memory_grows_with_what_it_is_made_of():
    def total(run=PLAIN, **changes):
        return sum(room(replace(run, **changes)).values())

    plain = total()
    assert total(parameters=2_000_000) - plain == 2 * 2 * 1_000_000, "two networks of two-byte weights"
    assert total(chunks=9) > total(chunks=5) and total(tokens=8) > plain
    assert total(seen=2, chunks=65) < total(chunks=65) / 2
    large = replace(changed(steps=50, experiments=("rollouts",), statistics=()), tokens=1560)
    few = replace(large, settings=replace(large.settings, tokens=64, stats_steps=5))
    assert total(few) < total(large)
    assert total(large, tokens=3120) < 2.1 * total(large), "grows with tokens squared"


def test_the_presets_are_the_released_networks():
    from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

    for name, sizes in PRESETS.items():
        with torch.device("meta"):
            network = WanTransformer3DModel(
                num_layers=sizes["layers"], num_attention_heads=sizes["heads"],
                attention_head_dim=sizes["d_model"] // sizes["heads"], ffn_dim=sizes["mlp_width"],
            )  # fmt: skip
        assert shape_of_preset(name, 1, Settings()).parameters == sum(
            weight.numel() for weight in network.parameters()
        )


def test_a_1_3b_network_is_probed_on_80_gigabytes(capsys):
    assert main("estimate --preset wan-1.3b --dtype bfloat16".split()) == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.match(r"wan-1\.3b.* 1\.42 .*\b30 .*\b50 ", lines[0])
    (memory,) = [line for line in lines if re.search(r"\bGB\b.*together", line)]
    assert float(memory.split()[0]) < 75
    assert re.search(r"\b300 TFLOP/s.*\b8 ", lines[-1])
    named = {line.rpartition("  ")[2] for line in lines if "PFLOP" in line}
    assert named == {*experiments.names(), "chunk probe", "memory", "together"}


def test_a_model_is_estimated_as_it_would_be_run(tmp_path, capsys):
    path = tiny.checkpoint(tmp_path / "tiny.safetensors")
    assert main(["estimate", "--model", str(path), "--quick", "--experiments", "cut"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"\b2 .*\b16, .*\b25 .*\b6 .*\b10 .*float32", out)
    assert main(["estimate", "--model", str(tmp_path / "none.safetensors")]) == 2
    assert re.match("framelens estimate: .*none.safetensors", capsys.readouterr().err)
