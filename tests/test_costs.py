"""What an experiment or a statistic says that it costs is what it costs, for every file of the registries."""

from dataclasses import replace

import counted
import pytest
import tiny
import tiny_wan
import torch
from torch.utils.flop_counter import FlopCounterMode

from framelens.analyses import statistics
from framelens.analyses.cost import WatchedShape
from framelens.diffusion.sampler import rollout
from framelens.diffusion.schedule import sigma_grid
from framelens.models import dense
from framelens.probes import experiments
from framelens.probes.experiments.rollouts import make_instruments
from framelens.probes.run.costs import claim_of, shared_evaluations
from framelens.probes.run.settings import Settings

QUICK = {"quick": True, "layers": (1, 1)}

# Experiments


def assert_claim_is_what_is_run(name, model, about):
    probed_clip, run = counted.probed(model, about)
    claim = claim_of(name, run)
    shared = shared_evaluations(claim.chunk, run)
    with counted.counted(dict(probed_clip.networks)) as counts:
        experiments.load(name).measure(probed_clip)
    assert counts["denoising"] == claim.denoising + shared.denoising
    assert counts["encoding"] == claim.encoding + shared.encoding
    return counts


@pytest.fixture(scope="module")
def networks():
    return {kind: make() for kind, make in counted.NETWORKS.items()}


@pytest.mark.slow
@pytest.mark.parametrize("kind", counted.NETWORKS)
@pytest.mark.parametrize("name", experiments.names())
def test_an_experiment_runs_the_layers_that_it_says(name, kind, networks):
    with counted.few():
        assert_claim_is_what_is_run(name, networks[kind], counted.settings())


@pytest.mark.slow
@pytest.mark.parametrize("changes", [QUICK, {"steps": 1, "starts": ()}, {"starts": (0, 1), "layers": (0, 1)}])
@pytest.mark.parametrize("name", experiments.names())
def test_an_experiment_knows_what_settings_change(name, changes, networks):
    with counted.few():
        assert_claim_is_what_is_run(name, networks["dense"], counted.settings(**changes))


@pytest.mark.slow
@pytest.mark.parametrize("name", experiments.names())
def test_one_condition_to_a_batch_shares_one_past(name, networks, monkeypatch):
    with counted.few():
        monkeypatch.setattr("framelens.probes.chunk.chunk_probe.TOKENS", 1)
        assert_claim_is_what_is_run(name, networks["dense"], counted.settings())


@pytest.mark.parametrize("name", ["mask_drift", "rollouts", "known_state"])
def test_a_network_that_makes_whole_clips_is_counted_by_chunks(name, tmp_path):
    model = tiny_wan.load(tiny_wan.folder(tmp_path / "wan", tiny_wan.stock()))
    with counted.few():
        counts = assert_claim_is_what_is_run(name, model, counted.settings(videos="clips.safetensors"))
    assert (counts["denoising"] > 0) == (name != "known_state")


def test_a_known_world_costs_more_than_an_unknown_one(networks):
    _, run = counted.probed(networks["dense"], counted.settings())
    assert claim_of("known_state", run).denoising > 0
    assert claim_of("known_state", replace(run, knows_state=False)).denoising == 0


def test_known_state_keeps_the_features_that_it_says(networks):
    known_state = experiments.load("known_state")
    with counted.few():
        probed_clip, run = counted.probed(networks["dense"], counted.settings())
        stored = known_state.measure(probed_clip)[known_state.FEATURES].features
        clips, last = len(stored.member), int(stored.frame[-1])
        assert known_state.kept_bytes(run) == run.cache_bytes(last, clips) + stored.nbytes


# Statistics

SIZES = {"few tokens": (8, 4, 16), "many tokens": (17, 1, 72), "wide": (8, 4, 320)}
"""Rows and columns of a frame, the side of a patch, and channels of a token."""
FRAMES, STEPS = 4, 3


def watched(name, size, settings):
    """A statistic that has seen a small rollout, the network's operations beside, and what was watched."""
    side, patch, width = SIZES[size]
    config = tiny.config(
        height=side, width=side, patch=patch, layers=2, d_model=width, rope_axes=(width // 2 - 4, 2, 2)
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = dense.build(config).eval().requires_grad_(False)
    noise, frames = tiny.draw(1, FRAMES, 3, side, side), {2, 3}
    statistic = statistics.new(name, settings)

    def draw(on_pass):
        rollout(model, noise, sigma_grid(STEPS), given=noise[:, :2], on_pass=on_pass)

    with FlopCounterMode(display=False) as plain:
        draw(lambda at: None)
    attached = make_instruments(model, {name: statistic}, frames)
    with attached, FlopCounterMode(display=False) as counter:
        draw(attached.on_pass)
    shape = WatchedShape(
        layers=2, heads=2, width=width, tokens=model.geometry.tokens_per_frame, steps=STEPS, pasts=(2, 3)
    )
    return statistic, counter.get_total_flops() - plain.get_total_flops(), shape


def held_bytes(value, seen=None):
    """Bytes of all tensors within a value."""
    seen = set() if seen is None else seen
    if id(value) in seen:
        return 0
    seen.add(id(value))
    if isinstance(value, torch.Tensor):
        return value.nbytes
    if isinstance(value, dict):
        return sum(held_bytes(part, seen) for part in value.values())
    if isinstance(value, list | tuple | set):
        return sum(held_bytes(part, seen) for part in value)
    return held_bytes(vars(value), seen) if hasattr(value, "__dict__") else 0


RUNS = {"all tokens": {}, "64 tokens": {"tokens": 64}}


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("settings", RUNS)
@pytest.mark.parametrize("name", statistics.names())
def test_a_statistic_keeps_and_computes_what_it_says(name, settings, size):
    about = Settings(frames=FRAMES, context=2, probed=2, steps=STEPS, queries=8, **RUNS[settings])
    statistic, flops, shape = watched(name, size, about)
    cost = statistics.cost_of(name, about, shape)
    assert held_bytes(statistic) == cost.kept_bytes > 0
    with FlopCounterMode(display=False) as counter:
        statistic.result()
    flops += counter.get_total_flops()
    # Of fused attention torch counts nothing, so that half of what is read of attention may be missing.
    assert flops <= cost.products <= 2 * flops
    assert cost.products == flops or statistics.load(name).reads == "attention"
