"""What a run is said to take is what it takes: passes exactly, memory by arithmetic that adds up."""

from dataclasses import replace

import pytest
import tiny
import tiny_wan
import torch

from framelens.models.loading.shuffled import shuffled
from framelens.probes import experiments
from framelens.probes.__main__ import main
from framelens.probes.chunk import stage as _stage
from framelens.probes.estimate.__main__ import PRESETS, _of_preset
from framelens.probes.estimate.memory import Sizes, room
from framelens.probes.estimate.passes import COUNTED, STAGED, Run, evaluations, uncounted
from framelens.probes.experiments import noise_invariance
from framelens.probes.run import subject
from framelens.probes.run.settings import Settings
from framelens.probes.run.subject import Clip, Subject

FRAMES, LAYERS, HEADS = 5, 3, 2
SIZES = Sizes(parameters=1_000_000, d_model=64, mlp_width=256, value_bytes=2)


def run(**changes):
    settings = {"clips": 1, "context": 2, "steps": 3, "frames": FRAMES, "probed": 2}
    settings |= {"statistics": ("block_norms",)}
    return Run(LAYERS, LAYERS, HEADS, FRAMES, 1, 4, Settings(**settings | changes))


def measured(name, run, model):
    """Blocks run times rows by one experiment, and those that took frames into memory."""
    clips = [Clip(tiny.draw(1, FRAMES, 3, 8, 8, seed=seed).clamp(-1, 1), None) for seed in (1, 2)]
    networks = {"trained": model, "random": shuffled(model, 0)}
    about = Subject(0, networks, *clips, run.settings, FRAMES)
    counted = {"denoise": 0, "encode": 0}
    with pytest.MonkeyPatch.context() as patch:
        for kind in counted:
            plain = getattr(type(model), kind)

            def counting(self, x, *rest, kind=kind, plain=plain):
                counted[kind] += len(x) * LAYERS
                return plain(self, x, *rest)

            patch.setattr(type(model), kind, counting)
        experiments.load(name).measure(about)
    stages = about._stages.values()
    return sum(stage.evaluations for stage in stages) if stages else counted["denoise"], counted["encode"]


@pytest.fixture(scope="module")
def model():
    model = tiny.model(layers=LAYERS)
    model.source = type("Source", (), {"metadata": {}})()
    return model


QUICK = {"quick": True, "layers": (1, 2)}
COUNTS = [(name, {}) for name in COUNTED if name != "mask_drift"]
COUNTS += [(name, QUICK) for name in ("cut", "reuse_refresh", "skip")]


@pytest.mark.parametrize(("name", "changes"), COUNTS)
def test_passes_are_counted_as_they_are_run(model, name, changes, monkeypatch):
    monkeypatch.setattr(noise_invariance, "SIGMAS", (1.0,))
    monkeypatch.setattr("framelens.probes.estimate.passes.SIGMAS", (1.0,))
    monkeypatch.setattr(_stage, "TOKENS", 16)  # two conditions to a batch
    monkeypatch.setattr("framelens.probes.estimate.passes.TOKENS", 16)
    monkeypatch.setattr(subject, "LEVELS", 2)
    monkeypatch.setattr("framelens.probes.estimate.passes.LEVELS", 2)
    about = run(experiments=(name,), **changes)
    expected = evaluations(about)
    denoised, remembered = measured(name, about, model)
    assert denoised == expected[name] + expected.get("stage", 0)
    assert remembered == expected["memory"]


def test_the_pass_over_whole_clips_is_counted(tmp_path, monkeypatch):
    path = tiny_wan.folder(tmp_path / "wan", tiny_wan.stock())
    model, calls = tiny_wan.load(path), []
    kind = type(model)
    plain = kind._through
    monkeypatch.setattr(kind, "_through", lambda self, x, *rest: calls.append(x) or plain(self, x, *rest))
    clips = [Clip(tiny_wan.clip(4, 1, seed), tiny_wan.prompt(1)) for seed in (1, 2)]
    settings = Settings(clips=1, context=2, frames=4, steps=2, experiments=("mask_drift",))
    experiments.load("mask_drift").measure(
        Subject(0, {"trained": model, "random": model}, *clips, settings, 4)
    )
    about = Run(2, 2, 2, 4, 1, 4, settings, is_bidirectional=True)
    layers = 2
    assert evaluations(about)["mask_drift"] == len(calls) * layers * 4
    assert evaluations(replace(about, is_bidirectional=False))["mask_drift"] == 0


def test_every_experiment_is_counted_or_said_not_to_be():
    assert set(COUNTED) | set(uncounted(run())) == set(experiments.names())
    assert uncounted(run()) == ["known_state"] and set(STAGED) < set(COUNTED)


def test_memory_grows_with_what_it_is_made_of():
    def total(changes=None, **run_changes):
        return sum(room(replace(run(), **run_changes), replace(SIZES, **changes or {})).values())

    plain = total()
    assert total({"parameters": 2_000_000}) - plain == 2 * 2 * 1_000_000, "two networks of two-byte weights"
    assert total(chunks=9) > total(chunks=5) and total(tokens=8) > plain
    assert total({"seen": 2}, chunks=65) < total(chunks=65) / 2
    statistics = run(steps=50, experiments=("rollouts",))
    large = replace(statistics, tokens=1560)
    few = replace(large, settings=replace(large.settings, tokens=64, stats_steps=5))
    assert sum(room(few, SIZES).values()) < sum(room(large, SIZES).values())
    twice = replace(large, tokens=3120)
    assert sum(room(twice, SIZES).values()) < 2.1 * sum(room(large, SIZES).values()), (
        "grows with tokens squared"
    )


def test_the_presets_are_the_released_networks():
    from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

    for name, sizes in PRESETS.items():
        with torch.device("meta"):
            network = WanTransformer3DModel(
                num_layers=sizes["layers"], num_attention_heads=sizes["heads"],
                attention_head_dim=sizes["d_model"] // sizes["heads"], ffn_dim=sizes["mlp_width"],
            )  # fmt: skip
        assert _of_preset(name, 1).parameters == sum(weight.numel() for weight in network.parameters())


def test_a_1_3b_network_is_probed_on_80_gigabytes(capsys):
    assert main("estimate --preset wan-1.3b --dtype bfloat16".split()) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("wan-1.3b: 1.42 billion weights, 30 layers") and "50 steps" in lines[0]
    (memory,) = [line for line in lines if line.endswith("GB  together")]
    assert float(memory.split()[0]) < 75
    assert any(line.endswith("PFLOP") or "together" in line for line in lines)
    assert lines[-2].startswith("at 300 TFLOP/s; 8 clips take")
    assert lines[-1] == "not counted: known_state"


def test_a_model_is_estimated_as_it_would_be_run(tmp_path, capsys):
    path = tiny.checkpoint(tmp_path / "tiny.safetensors")
    assert main(["estimate", "--model", str(path), "--quick", "--experiments", "cut"]) == 0
    out = capsys.readouterr().out
    assert "2 layers of width 16, 25 tokens a chunk; clips of 6 chunks, 10 steps, float32" in out
    assert main(["estimate", "--model", str(tmp_path / "none.safetensors")]) == 2
    assert capsys.readouterr().err.startswith("estimate: there is no checkpoint at")
