"""Rates of a machine: what is measured is what they predict, with blocks of the shape that was requested."""

import math
from dataclasses import replace

import pytest
import torch

from framelens.models import dense
from framelens.models.cost import calibration
from framelens.models.cost.calibration import calibrate
from framelens.models.cost.machine import Machine
from framelens.models.cost.operations import Shape, denoise_cost, parameters, shape_of
from framelens.models.wan.config import WanConfig
from framelens.probes.estimate.presets import shape_of_preset
from framelens.probes.run.settings import Settings

SHAPE = shape_of(dense.config("tiny"))
LARGE = Shape(layers=30, d_model=1536, heads=12, mlp_width=8960, tokens=1560, values=64, text_tokens=512)
TIMED = {"copy": 1e-9, "token": 1.0, "frame": 1.5, "past": 1.75}


def seconds(machine, shape, past):
    return machine.seconds(denoise_cost(shape, past, modulated=True))


def test_the_rates_give_back_the_times_that_they_come_from(monkeypatch):
    monkeypatch.setattr(calibration, "_seconds", lambda runs, device: TIMED)
    machine = calibrate("cpu", "float32", SHAPE)
    timed = calibration._timed_shape(SHAPE, on_gpu=False)
    past = calibration._frames(timed)
    assert seconds(machine, replace(timed, tokens=1), 0) == pytest.approx(TIMED["token"])
    assert seconds(machine, timed, 0) == pytest.approx(TIMED["frame"])
    assert seconds(machine, timed, past) == pytest.approx(TIMED["past"])


def test_times_that_contradict_each_other_give_rates_all_the_same(monkeypatch):
    timed = {"copy": 1e-3, "token": 2.0, "frame": 1.0, "past": 0.5}
    monkeypatch.setattr(calibration, "_seconds", lambda runs, device: timed)
    rates = vars(calibrate("cpu", "float32", SHAPE))
    assert all(0 <= rate < math.inf for rate in rates.values())


@pytest.mark.parametrize("changes", [{}, {"text_tokens": 3, "text_width": 6}, {"batch": 3}])
def test_this_machine_is_measured(changes, monkeypatch):
    monkeypatch.setattr(calibration, "ROUNDS", 2)
    monkeypatch.setitem(calibration.COPIED_BYTES, "cpu", 1024)
    shape = Shape(layers=2, d_model=16, heads=2, mlp_width=24, tokens=4, values=3, **changes)
    state = torch.random.get_rng_state()
    machine = calibrate("cpu", "float32", shape)
    assert torch.equal(torch.random.get_rng_state(), state), "no random numbers change"
    assert isinstance(machine, Machine) and not machine.hides_launches
    assert machine.frame_seconds(shape, 2, 3) > machine.encode_seconds(shape, 3) > 0


def test_what_is_timed_has_the_heads_of_the_model_and_ends_in_seconds():
    timed = calibration._timed_shape(LARGE, on_gpu=False)
    assert timed.d_model / timed.heads == LARGE.d_model / LARGE.heads
    assert timed.mlp_width / timed.d_model == pytest.approx(LARGE.mlp_width / LARGE.d_model, rel=0.01)
    assert timed.layers == 1 and denoise_cost(timed, 0).flops < 12e9
    small = calibration._timed_shape(SHAPE, on_gpu=False)
    assert (small.tokens, small.d_model, small.mlp_width) == (SHAPE.tokens, SHAPE.d_model, SHAPE.mlp_width)
    on_gpu = calibration._timed_shape(SHAPE, on_gpu=True)
    assert on_gpu.tokens == SHAPE.tokens and on_gpu.batch * on_gpu.tokens > 10_000


def test_a_wan_network_shares_its_modulation():
    config = WanConfig(
        layers=30, channels=16, height=60, width=104, patch=2, heads=12, d_model=1536, mlp_width=8960,
        text_tokens=512, text_width=4096, rope_axes=(44, 42, 42),
    )  # fmt: skip
    counted, released = parameters(shape_of(config)), shape_of_preset("wan-1.3b", 1, Settings()).parameters
    assert counted == pytest.approx(released, rel=1e-4), "all but the norms of queries and keys"
    assert counted < 0.8 * parameters(shape_of(dense.config("wan-1.3b")))
