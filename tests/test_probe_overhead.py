"""The cost of watching: the card counts what torch counts, arms take turns, bad input is one line."""

import json
import os
from functools import partial

import pytest
import torch
from refusals import assert_refused
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from framelens.analyses import statistics
from framelens.benchmarks import measure
from framelens.benchmarks.overhead import __main__ as probe_overhead
from framelens.benchmarks.overhead.__main__ import Arms, arms_of, card, main
from framelens.benchmarks.overhead.card import Rollout, naive_bytes, plain_flops
from framelens.models import dense

SMALL = ["--tokens", "4", "--frames", "2", "--steps", "2", "--repeats", "1", "--layers", "1", "--no-memory"]


def small(tokens=4, frames=3, steps=2):
    return Rollout(tokens, frames, steps, "cpu", 0, layers=1)


OTHER = dense.Config(
    layers=2, channels=3, height=4, width=6, patch=2, heads=2, d_model=16, mlp_width=40, rope_axes=(4, 2, 2)
)  # fmt: skip


@pytest.mark.parametrize("setting", [small(), Rollout(6, 3, 2, "cpu", 0, layers=2, network=OTHER)])
def test_the_card_counts_the_operations_that_torch_counts(setting):
    arms = Arms(setting)
    # torch does not count what its fused attention for CPUs does.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        arms.run("plain")
    assert plain_flops(setting) == counter.get_total_flops()


def test_the_card_knows_what_naive_capture_keeps():
    assert naive_bytes(small()) == sum(tensor.nbytes for tensor in Arms(small())._naive())


def test_watching_leaves_nothing_attached():
    arms = Arms(small())
    for name in arms_of(small()):
        arms.run(name)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in arms.network.modules())


def test_every_statistic_has_an_arm_and_a_line_on_the_card():
    assert set(statistics.names()) <= set(arms_of(small())) & set(card(small()))


def test_naive_capture_is_left_out_where_it_does_not_fit():
    assert "naive capture" in arms_of(small())
    assert "naive capture" not in arms_of(small(tokens=4096, frames=9))


def test_arms_take_turns_after_a_warm_up():
    ran = []
    arms = {name: partial(ran.append, name) for name in "abc"}
    taken = measure.interleave(arms, 3, "cpu", seed=0)
    rounds = [ran[start : start + 3] for start in range(0, 12, 3)]
    assert all(sorted(each) == ["a", "b", "c"] for each in rounds) and len(ran) == 12
    assert all(len(each.wall_seconds) == len(each.cpu_seconds) == 3 for each in taken.values())


def test_ratios_are_taken_within_a_round():
    slow, fast = measure.Taken([2.0, 20.0], [1.0, 1.0]), measure.Taken([1.0, 10.0], [1.0, 2.0])
    assert slow.over(fast) == {"wall_seconds": [2.0, 2.0], "cpu_seconds": [1.0, 0.5]}
    assert measure.spread([3.0, 1.0, 2.0]) == {"median": 2.0, "min": 1.0, "max": 3.0}


@pytest.mark.slow
@pytest.mark.skipif(not measure.can_measure_memory("cpu"), reason="this system does not tell peak memory")
def test_peak_memory_is_that_of_the_arm_alone():
    before = dict(os.environ)
    peak = measure.alone(measure.peak_bytes, partial(os.urandom, 30_000_000), "cpu")
    assert peak == pytest.approx(30_000_000, rel=0.1) and dict(os.environ) == before


@pytest.mark.slow
def test_the_last_line_is_one_document_with_units_in_its_keys(tmp_path, capsys):
    assert main([*SMALL, "--json", str(tmp_path / "overhead.json")]) == 0
    lines = capsys.readouterr().out.splitlines()
    document = json.loads(lines[-1])
    assert document == json.loads((tmp_path / "overhead.json").read_text())
    assert document["command"].startswith("framelens bench overhead ") and "torch" in document["versions"]
    assert document["settings"]["seed"] == 0
    (result,) = document["results"]
    assert result["measured"]["plain"]["wall_ratio"] == {"median": 1.0, "min": 1.0, "max": 1.0}
    assert result["measured"]["all statistics"]["wall_seconds"]["median"] > 0
    assert result["measured"]["plain"]["peak_bytes"] is None
    text = "\n".join(lines)
    assert text.index("by arithmetic") < text.index("measured")


@pytest.mark.parametrize(
    "arguments, remedy",
    [
        (["--tokens", "0"], "--tokens"),
        (["--tokens", "64", "60"], r"\b60\b"),
        (["--frames", "1"], "--frames .* 2"),
        (["--steps", "1"], "--steps .* 2"),
        (["--repeats", "0"], "--repeats .* 1"),
        (["--device", "tpu"], "cpu, cuda"),
        (["--json", "no/such/folder/x.json"], "no/such/folder"),
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments, remedy, capsys):
    assert_refused(main, [*SMALL, *arguments], remedy, capsys)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to be had")
def test_a_missing_gpu_is_one_line_and_status_2(capsys):
    assert main([*SMALL, "--device", "cuda"]) == 2
    assert "--device cpu" in capsys.readouterr().err


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_memory_of_a_gpu_is_measured():
    setting = Rollout(64, 2, 2, "cuda", 0, layers=1)
    assert probe_overhead.arm_peak_bytes(setting, "plain", 1) > 0
