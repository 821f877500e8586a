"""The benchmark of separation: card first, then measurement, a folder for reports, refusals in a line."""

import json
import re
from dataclasses import asdict, replace
from pathlib import Path

import fake_interventions
import numpy as np
import pytest
import tiny
import torch
import xarray as xr
from refusals import assert_refused

from framelens.benchmarks import measure
from framelens.benchmarks.scd import __main__ as scd_bench
from framelens.benchmarks.scd import memory, presets
from framelens.benchmarks.scd.__main__ import main
from framelens.benchmarks.scd.arms import Arm, network
from framelens.benchmarks.scd.card import card
from framelens.benchmarks.scd.plan import read_plan
from framelens.benchmarks.scd.presets import PRESETS, SLICES, TINY, choose_preset
from framelens.benchmarks.scd.sweeps import BenchSettings
from framelens.models import dense, scd
from framelens.models.cost import calibration
from framelens.models.cost.machine import Machine
from framelens.models.cost.operations import Cost, predicted_speed_up
from framelens.models.variants.fetch_once import FetchOnce
from framelens.reports.__main__ import main as draw

SMALL = tiny.SHAPE | {"conditions": 5}
PRESET = replace(
    TINY,
    name="trial",
    what="networks of a test",
    dense=dense.Config(layers=2, **SMALL),
    scd=scd.Config(encoder_layers=2, decoder_layers=1, **SMALL),
    frames=4, steps=2, history=2, guidance=1.5,
    histories=(1, 3), all_steps=(1, 2), decoder_layers=(1, 2), batches=(1, 2),
)  # fmt: skip
ASKED = ["--preset", "trial", "--repeats", "2", "--no-memory"]


@pytest.fixture(scope="module", autouse=True)
def trial():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "trial", PRESET)
        patch.setattr(calibration, "ROUNDS", 2)
        patch.setitem(calibration.COPIED_BYTES, "cpu", 1024)
        yield


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The command run once: its folder and what it printed."""
    folder = tmp_path_factory.mktemp("runs") / "bench" / "trial"
    with pytest.MonkeyPatch.context() as patch:
        printed = []
        patch.setattr("builtins.print", lambda *text, **_: printed.append(" ".join(map(str, text))))
        assert main([*ASKED, "--out", str(folder)]) == 0
    return folder, "\n".join(printed)


@pytest.mark.slow
def test_the_card_is_printed_before_anything_is_timed(ran):
    _, printed = ran
    places = [printed.index(text) for text in ("cost card of trial", "random weights", "encode ms")]
    assert places == sorted(places)


@pytest.mark.slow
def test_the_last_line_is_one_document_with_units_in_its_keys(ran):
    folder, printed = ran
    document = json.loads(printed.splitlines()[-1])
    assert document["random_weights"] and document["folder"] == str(folder)
    assert set(document["sweeps"]) == {"history", "steps", "decoder_layers", "batch"}
    rows = document["sweeps"]["history"]
    assert [(row["history"], row["arm"]) for row in rows[:4]] == [
        (1, "dense"), (1, "token_concat"), (1, "prefix"), (1, "fetch_once"),
    ]  # fmt: skip
    for row in rows:
        assert 0 < row["encode_seconds"]["median"] < row["frame_seconds"]["median"]
        assert row["frames_per_second"] == pytest.approx(1 / row["frame_seconds"]["median"])
    assert rows[0]["speed_up"] == {"median": 1.0, "min": 1.0, "max": 1.0}
    assert document["arms"]["dense"]["peak_bytes"] is None
    assert document["arms"]["prefix"]["first_frame_seconds"]["median"] > 0
    assert document["card"]["prefix"]["speed_up"] > document["card"]["token_concat"]["speed_up"]


@pytest.mark.slow
def test_the_folder_says_what_was_done_and_holds_named_dimensions(ran):
    folder, _ = ran
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["complete"] and manifest["kind"] == "bench" and "trial" in manifest["text"]
    assert manifest["command"].startswith("framelens bench scd --preset trial")
    with xr.open_dataset(folder / "bench_history.nc", engine="netcdf4") as stored:
        assert stored.sample_seconds.dims == ("history", "arm", "round")
        assert dict(stored.sizes) == {"history": 2, "arm": 4, "round": 2}
        assert all(values.attrs["units"] for values in stored.data_vars.values())
        assert stored.attrs["command"] == manifest["command"] and stored.attrs["seed"] == 0
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


@pytest.mark.slow
def test_figures_and_page_are_drawn_from_the_folder(ran):
    folder, _ = ran
    out = folder.parent / "figures"
    assert draw(["--run", str(folder), "--out", str(out)]) == 0
    names = {"bench_split", "bench_history", "bench_steps", "bench_depth_batch", "bench_predicted"}
    assert {path.stem for path in out.rglob("*.png")} == names
    page = (folder / "page.html").read_text()
    assert page.count("data:image/png") == 5 and "trial" in page


@pytest.mark.slow
def test_a_split_need_not_have_the_layers_of_the_dense_model(tmp_path, capsys):
    asked = [*ASKED, "--split", "2", "2", "--fusion", "prefix", "--vary", "steps=1", "--repeats", "6"]
    assert main([*asked, "--out", str(tmp_path / "run")]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"\b2 .*\b2 \+ 2; 2 .*\b2 .*\b1\b", printed)
    document = json.loads(printed.splitlines()[-1])
    assert list(document["sweeps"]) == ["steps"], "only what is named is swept"
    (row,) = document["split"]
    assert row["arm"] == "prefix" and row["predicted"]["plan"] is None
    assert row["measured"]["low"] <= row["measured"]["median"] <= row["measured"]["high"]
    reached = row["measured"]["median"] / row["predicted"]["operations"]
    assert row["measured_over_predicted"]["operations"] == pytest.approx(reached)
    assert row["predicted_over_measured"]["operations"] == pytest.approx(1 / reached)
    assert f"{row['predicted']['operations']:.2f} ({reached:.0%})" in printed
    with xr.open_dataset(tmp_path / "run" / "bench_split.nc", engine="netcdf4") as stored:
        assert stored.sample_seconds.dims == ("arm", "round") and stored.attrs["encoder_layers"] == 2


def plan_of(checkpoint, tokens=25, **changes):
    """A plan for the model at that path, as plain values."""
    plan = asdict(fake_interventions.plan({"layer": 3, "clip": 5}))
    plan["model"]["name"] = str(checkpoint)
    plan["architecture"] = {"encoder_layers": 1, "decoder_layers": 2, "fusion": "prefix"}
    use = {"steps": 2, "history": 3, "tokens": tokens, "batch": 1, "value_bytes": 4, "speed_up": 9.5}
    clock = {"speed_up": 1.5, "frame_seconds": 1.0, "dense_frame_seconds": 1.5, "device_name": "this one"}
    clock |= {"device": "cpu", "dtype": "float32", "threads": torch.get_num_threads()}
    plan["prediction"] |= use | {"clock": clock | {"measured": "2000-01-01", "machine": {}}}
    return {"kind": "plan", "format": 1} | plan | changes


@pytest.mark.slow
def test_a_plan_is_timed_as_it_was_planned(tmp_path, capsys):
    checkpoint = tiny.checkpoint(tmp_path / "model.safetensors")
    (tmp_path / "plan.json").write_text(json.dumps(plan_of(checkpoint)))
    asked = ["--plan", str(tmp_path / "plan.json"), "--repeats", "2", "--no-memory"]
    assert main([*asked, "--out", str(tmp_path / "run")]) == 0
    document = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert document["sweeps"] == {} and document["plan"]["speed_up"] == 9.5
    row, once = document["split"]
    assert once["arm"] == "fetch_once" and once["predicted"]["plan"] is None
    assert document["timed"]["past_layers"] == 1, "as the plan's encoder"
    assert row["predicted"]["plan"] == 9.5 and row["predicted"]["plan_clock"] == 1.5
    timed = document["timed"]
    assert (timed["steps"], timed["history"], timed["guidance"], timed["threads"]) == (2, 3, 1.0, 1)
    assert document["networks"]["dense"]["layers"] == 2 and document["networks"]["dense"]["d_model"] == 16
    assert document["networks"]["scd"]["encoder_layers"] == 1
    assert draw(["--run", str(tmp_path / "run"), "--out", str(tmp_path)]) == 0
    page = (tmp_path / "run" / "page.html").read_text()
    assert re.search(r"\b9\.50\b.*\b1\.50\b", page)


@pytest.mark.slow
def test_the_arithmetic_of_a_plan_and_of_its_benchmark_is_the_same():
    shipped = Path(__file__).parent.parent / "reports" / "gallery" / "dense-tiles-plan.json"
    stated = read_plan(shipped)
    preset, _ = choose_preset(stated.model, on_gpu=False, split=stated.split)
    shapes = [preset.shape(arm, batch=stated.batch) for arm in ("dense", stated.fusion)]
    assert predicted_speed_up(*shapes, stated.steps, stated.history) == pytest.approx(stated.speed_up)


@pytest.mark.parametrize(
    ("changes", "more", "stated"),
    [
        ({"architecture": None, "verdict": "not separable"}, [], "not separable"),
        ({"prediction": None}, [], "plan.json"),
        ({"kind": "probe"}, [], "plan.json"),
        ({}, ["--split", "1", "1"], r"1 \+ 2"),
        ({"tokens": 99}, [], r"\b25\b.*--tokens"),
    ],
)
def test_a_plan_that_cannot_be_timed_is_one_line(changes, more, stated, tmp_path, capsys):
    plan = plan_of(tiny.checkpoint(tmp_path / "model.safetensors"), **changes)
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    assert main(["--plan", str(tmp_path / "plan.json"), *more, "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert re.search(stated, error) and error.count("\n") == 1


def test_shapes_can_be_those_of_a_separated_model():
    preset, timed = choose_preset("scd-tiles", on_gpu=False)
    assert preset is timed and (preset.scd.encoder_layers, preset.scd.decoder_layers) == (8, 4)
    assert preset.dense.layers == 12 and preset.dense.d_model == preset.scd.d_model


def test_the_interval_of_a_median_holds_it_as_often_as_it_says():
    rng = np.random.default_rng(0)
    for count, share in ((25, 0.95), (6, 0.95), (3, 0.7)):
        ends = [measure.median_interval(list(rng.normal(size=count))) for _ in range(2000)]
        held = np.mean([low <= 0 <= high for low, high in ends])
        assert share - 0.02 < held < share + 0.05 or count == 3 and held > share
    assert measure.median_interval([3.0, 1.0, 2.0]) == (1.0, 3.0)


@pytest.mark.slow
def test_results_that_are_there_are_not_overwritten(ran, capsys):
    folder, _ = ran
    assert main([*ASKED, "--out", str(folder)]) == 2
    assert str(folder) in capsys.readouterr().err


def test_a_default_folder_is_one_that_holds_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = scd_bench.default_folder("tiny", "cuda:0")
    assert first == Path("runs/bench/tiny-cuda")
    first.mkdir(parents=True)
    (first / "manifest.json").write_text("{}")
    assert scd_bench.default_folder("tiny", "cuda:0") == Path("runs/bench/tiny-cuda-2")


@pytest.mark.parametrize(
    "arguments, stated",
    [
        (["--preset", "huge"], "'huge'.*tiny, small, minecraft, wan-1.3b"),
        (["--fusion", "prefix", "sum"], "'sum'"),
        (["--mode", "fast"], "'fast'.*plain, graph, compile"),
        (["--mode", "graph"], "--device cuda"),
        (["--vary", "history=1,4"], r"\b4 .*trial.*\b4\b"),
        (["--vary", "decoder_layers=3"], r"\b3 .*trial.*\b3 "),
        (["--vary", "decoder_layers=0"], "decoder_layers .* 1.* 0"),
        (["--vary", "batch=0"], "batch .* 1"),
        (["--vary", "steps=0"], "steps .* 1"),
        (["--vary", "width=2"], "'width'.*history, steps, decoder_layers, batch"),
        (["--vary", "steps=1,a"], "steps=1,4"),
        (["--vary", "steps="], "steps="),
        (["--split", "0", "2"], r"\b0 .*\b2\b"),
        (["--preset", "minecraft", "--split", "6", "9"], "minecraft"),
        (
            ["--plan", "nowhere.json"],
            "nowhere.json.*framelens plan",
        ),
        (["--repeats", "0"], "--repeats .* 1"),
        (["--threads", "0"], "--threads .* 1"),
        (["--dtype", "int8"], "'int8'"),
        (["--device", "tpu"], "'tpu'"),
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments, stated, capsys, tmp_path):
    assert_refused(main, [*ASKED, *arguments], stated, capsys, tmp_path / "run")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to be had")
@pytest.mark.parametrize("preset", ["tiny", "minecraft", "wan-1.3b"])
def test_a_missing_gpu_is_one_line_and_status_2(preset, capsys):
    assert main(["--preset", preset, "--device", "cuda"]) == 2
    assert "--device cpu" in capsys.readouterr().err


def test_what_does_not_fit_is_refused_with_what_would(capsys, tmp_path, monkeypatch):
    arms = ["dense", "token_concat", "prefix", "fetch_once"]
    free = memory.needed_bytes(PRESET, arms, "float32", 2, 1)
    monkeypatch.setattr(memory, "free_bytes", lambda device: free)
    assert main([*ASKED, "--out", str(tmp_path / "run")]) == 2
    stated = capsys.readouterr().err
    assert re.search(r"trial .*\b3 .*\b1 .*\b2 .*\b1\b", stated)
    assert memory.what_fits(PRESET, arms, "float32", 0, 3, 1) not in stated


def test_running_out_of_memory_is_a_line_and_keeps_what_was_finished(capsys, tmp_path, monkeypatch):
    def exhausted(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB")

    monkeypatch.setattr(Arm, "encode", exhausted)
    assert main([*ASKED, "--out", str(tmp_path / "run")]) == 2
    stated = capsys.readouterr().err
    assert "cpu" in stated and stated.strip().count("\n") == 0
    assert (tmp_path / "run" / "bench_card.nc").exists()
    assert not json.loads((tmp_path / "run" / "manifest.json").read_text())["complete"]


def test_what_arms_need_is_at_least_what_they_hold():
    arm = Arm(network(PRESET, "dense", "cpu", "float32", 0), PRESET, "cpu", 0)
    arm.reach(3, 2)
    held = sum(weight.nbytes for weight in arm.network.parameters())
    for context in arm.context.values():
        parts = context.cache.storage.keys + context.cache.storage.values
        held += sum(part[:, :, : context.cache.tokens].numel() * part.element_size() for part in parts)
    assert held <= memory.needed_bytes(PRESET, ["dense"], "float32", 3, 2)


def test_an_arm_goes_on_from_where_it_stands_and_stays_there():
    arm = Arm(network(PRESET, "prefix", "cpu", "float32", 0), PRESET, "cpu", 0)
    arm.reach(1, 1)
    arm.reach(3, 1)
    assert set(arm.context) == {"cond", "uncond"}
    assert all(context.frame == 3 for context in arm.context.values())
    before = arm.sample(arm.sigmas(2))
    for _ in range(2):
        arm.prepare_encode()
        arm.encode()
    assert torch.equal(arm.sample(arm.sigmas(2)), before)
    cache = arm.context["cond"].cache
    assert cache.tokens == cache.storage.written, "an older cache would copy its history at every step"


def test_preparation_is_off_the_clock_and_before_every_run():
    done = []
    runs = {"a": lambda: done.append("run a"), "b": lambda: done.append("run b")}
    measure.interleave(runs, 2, "cpu", 0, {"a": lambda: done.append("before a")})
    assert done.count("before a") == done.count("run a") == 3
    assert all(done[place - 1] == "before a" for place, what in enumerate(done) if what == "run a")


def test_launches_add_on_a_cpu_and_hide_on_a_gpu():
    cost = Cost(linear_flops=100, attention_flops=20, weight_bytes=30, state_bytes=10, blocks=3)
    for hidden, seconds in ((False, 10 + 4 + 6), (True, 10 + 4)):
        assert Machine(10.0, 5.0, 8.0, 2.0, hidden).seconds(cost) == seconds
    assert Machine(1e9, 1e9, 8.0, 2.0, True).seconds(cost) == 6


def test_few_tokens_wait_for_weights_and_keys_to_be_read():
    cost = Cost(linear_flops=1, attention_flops=1, weight_bytes=30, state_bytes=10)
    assert Machine(1e9, 1e9, 10.0, 0.0, True).seconds(cost) == 3 + 1


def test_the_card_repeats_the_arithmetic_and_its_bounds_bound():
    costs = card(PRESET, "float32")
    own = predicted_speed_up(PRESET.shape("dense"), PRESET.shape("prefix"), PRESET.steps, PRESET.history)
    assert float(costs.speed_up.sel(arm="prefix")) == own
    assert float(costs.speed_up_steps.sel(arm="prefix", steps=PRESET.steps)) == own
    assert (costs.speed_up_steps <= costs.bound_steps + 1e-9).all()
    longer = costs.speed_up_history.sel(arm="token_concat").diff("history")
    assert (longer > 0).all()


def test_the_past_fetched_once_saves_more_the_longer_the_history():
    costs = card(PRESET, "float32")
    own = costs.speed_up_history.sel(arm="fetch_once")
    assert (own.diff("history") > 0).all() and float(own[0]) > 1
    assert float(costs.parameters.sel(arm="fetch_once")) == float(costs.parameters.sel(arm="dense"))


def test_a_plans_layers_see_the_past_that_is_fetched_once():
    model = network(replace(PRESET, past_layers=1), "fetch_once", "cpu", "float32", 0)
    assert isinstance(model, FetchOnce) and model.cut == 1
    assert PRESET.shape("fetch_once").past_layers == 2


def test_a_cpu_times_a_slice_of_a_big_preset_and_a_gpu_all_of_it():
    for name in ("minecraft", "wan-1.3b"):
        full, timed = choose_preset(name, on_gpu=False)
        assert timed == SLICES[name] and name in timed.what
        assert choose_preset(name, on_gpu=True) == (full, full)
    assert choose_preset("tiny", on_gpu=False) == (TINY, TINY)


def test_the_big_presets_have_the_geometry_that_they_name():
    minecraft, wan = PRESETS["minecraft"], PRESETS["wan-1.3b"]
    assert minecraft.shape("dense").tokens == 64 and minecraft.branches == 2 and minecraft.steps == 50
    assert wan.shape("dense").tokens == 1560 and wan.shape("prefix").encoder_layers == 25
    assert wan.shape("dense").mlp_width == 8960 and wan.shape("dense").text_tokens == 512


def test_the_small_preset_is_between_tiny_and_the_papers_sizes():
    small = PRESETS["small"]
    assert (small.history, small.steps, small.shape("dense").tokens) == (64, 20, 64)
    assert choose_preset("small", on_gpu=False) == (small, small) and not any(small.varied.values())


def test_a_dense_arm_is_never_compiled_for_fixed_shapes():
    plan = BenchSettings(PRESET, ["prefix", "fetch_once"], ["plain", "compile"], "cpu", "float32", 1, 0)
    assert plan.arms == {
        "dense": ("dense", "plain"), "prefix": ("prefix", "plain"), "fetch_once": ("fetch_once", "plain"),
        "prefix, compile": ("prefix", "compile"),
    }  # fmt: skip


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu_plain_and_graph_are_measured(tmp_path, capsys):
    asked = ["--preset", "trial", "--repeats", "1", "--device", "cuda", "--out", str(tmp_path / "run")]
    assert main(asked) == 0
    document = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert document["arms"]["prefix, graph"]["largest_relative_difference"] < 0.05
    assert document["arms"]["dense"]["peak_bytes"] > 0


def test_presets_are_listed_once():
    assert set(SLICES) < set(presets.PRESETS)
