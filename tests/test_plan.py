"""The planner: says yes, partly and no when it should, says why, and what it writes is accepted as it is."""

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import by_hand
import fake_evidence
import fake_interventions
import fake_manifest
import numpy as np
import pytest
import tiny
import torch
import xarray as xr

from framelens.analyses.decision.kept import Context, depth_from, summary
from framelens.analyses.decision.split import DATASETS, NEWER, split
from framelens.analyses.decision.verdict import QUESTIONS
from framelens.benchmarks.scd import __main__ as scd_bench
from framelens.diffusion.source import Source
from framelens.models import dense, scd
from framelens.models.cost import calibration, operations
from framelens.models.cost.machine import Machine
from framelens.models.loading.shuffled import copy_shuffled
from framelens.probes.chunk.pasts import Clip
from framelens.probes.experiments import load, noise_invariance
from framelens.probes.plan import __main__ as plan
from framelens.probes.plan.build import write_plan
from framelens.probes.plan.prediction import Clock, Use, separated_shape, shape_in_use
from framelens.probes.plan.text import text
from framelens.probes.run import probed_clip
from framelens.probes.run.settings import Settings
from framelens.records import typed
from framelens.records.manifest import BenchManifest
from framelens.records.plan import SPLIT_WORLDS, Plan, PlannedSweep, split_recipe
from framelens.reports.page.split_section import split_parts, sweep_parts
from framelens.training import __main__ as training
from framelens.training.recipes import RECIPES

ROOT = Path(__file__).parents[1]
LAYERS, FRAMES, CLIPS = 8, 2, 5
OF_WORLDS = ("channels", "height", "width", "conditions")


def answer(drop=(), layers=LAYERS, **chosen):
    found = fake_evidence.datasets(layers=layers, **chosen)
    return split({name: found[name] for name in found if name not in drop}, layers)


def passed(found):
    return {test.name: test.passed for test in found.tests}


# Verdicts


def test_a_network_that_fetches_its_past_once_and_early_is_separable():
    found = answer()
    assert found.verdict == "separable" and all(passed(found).values())
    assert found.cut is not None and found.cut.encoder_layers == 3
    assert (found.cut.head, found.cut.tail) == ([0], [3, 4, 5, 6, 7])
    assert found.sweep.found == [3] * 6 and found.sweep.tracks_threshold is False
    assert re.search(r"90 ± 0 %.*98 % \[97, 100\].*\b3 .*\b8\b", found.reason)


EVERY_LAYER = list(np.linspace(0, 1, LAYERS + 1))
NOT = "not separable"


@pytest.mark.parametrize(
    ("chosen", "verdict", "failed"),
    [
        ({"random_error": 0.1}, NOT, {"predicts"}),
        ({"benefit": 0.01}, NOT, {"uses_past"}),
        ({"benefit": -0.2}, NOT, {"uses_past"}),
        ({"other_clip": 0.9}, NOT, {"own_past"}),
        ({"once": 0.3, "live": EVERY_LAYER}, NOT, {"once", "depth", "decoder"}),
        ({"live": EVERY_LAYER}, "partly separable", {"depth"}),
        ({"once": 0.6}, "partly separable", {"once"}),
        ({"agreement": 0.0}, "partly separable", {"invariant"}),
        ({"sharpness": 0.5}, "partly separable", {"sharp"}),
        ({"own_work": dict.fromkeys(range(LAYERS), 0.5)}, "partly separable", {"decoder"}),
        ({"failing": "identity_edit"}, "open", {"controls"}),
        ({"failing": "own_frame_only"}, "open", {"controls"}),
    ],
)
def test_each_failure_has_its_verdict_and_is_named(chosen, verdict, failed):
    found = answer(**chosen)
    assert found.verdict == verdict
    assert {name for name, outcome in passed(found).items() if outcome is False} == failed
    if verdict != "open":
        first = next(test for test in found.tests if test.name in failed)
        assert first.question.failing in found.reason and first.measured in found.reason


def test_no_control_is_needed_to_say_that_nothing_is_predicted():
    assert answer(random_error=0.1, failing="own_frame_only").verdict == NOT


@pytest.mark.parametrize("name", DATASETS)
def test_a_missing_dataset_leaves_the_verdict_open_and_is_named(name):
    found = answer(drop=[name])
    assert found.verdict == "open" and name in found.reason
    assert found.cut is None or name not in ("cut", "reuse", "leave_one_out")


def test_missing_evidence_cannot_save_what_another_test_refuses():
    assert answer(drop=["reuse", "noise_invariance"], other_clip=0.9).verdict == NOT


def test_too_few_clips_are_one_clear_line_and_no_test_but_the_controls_is_answered():
    found = answer(clips=4)
    assert found.verdict == "open"
    assert re.search(r"\b4 .*\b5 .*--clips 8\b", found.reason)
    assert {name for name, outcome in passed(found).items() if outcome is not None} == {"controls"}


def test_an_interval_on_both_sides_of_the_threshold_decides_nothing_and_says_so():
    found = answer(once=0.9, wobble=0.2, live=[0.0, 0.1, 0.4] + [2.0] * (LAYERS - 2))
    assert passed(found)["once"] is None and found.verdict == "open"
    assert "90 %" in found.tests[4].measured
    assert "--clips 32" in found.would_decide


UNREADABLE = [
    ({"benefit": 0.05}, "--clips 32"),
    ({"random_error": 0.1, "failing": "own_frame_only"}, ""),
    ({"failing": "own_frame_only"}, "control"),
    ({"clips": 4}, "5"),
]


@pytest.mark.parametrize(("chosen", "decides"), UNREADABLE)
def test_where_no_split_can_be_read_none_is_placed(chosen, decides):
    found = answer(**chosen)
    assert found.cut is None and found.verdict in ("open", NOT)
    assert decides in found.would_decide and bool(decides) == bool(found.would_decide)
    if "clips" not in chosen:
        assert found.sweep is None, "shares of no benefit, or of one that a failed control measured"


@pytest.mark.parametrize("name", ["controls", "reuse_controls", "noise_invariance"])
def test_what_was_not_measured_leaves_a_split_and_says_what_would_decide(name):
    found = answer(drop=[name])
    assert found.verdict == "open" and found.cut is not None and found.cut.encoder_layers == 3
    assert "--quick" in found.would_decide


def test_a_benefit_needs_both_measures_and_the_whole_interval():
    assert Context(fake_evidence.datasets(benefit=0.06)["cut"]).has_benefit()
    assert not Context(fake_evidence.datasets(benefit=0.05)["cut"]).has_benefit()
    velocity = fake_evidence.datasets()["cut"]
    velocity["plain_mse"] = velocity.mse.sel(where="from", layer=0, drop=True)
    assert not Context(velocity).has_benefit(), "the generated frame gains nothing"
    assert Context(fake_evidence.datasets(clips=3)["cut"]).has_benefit(), "by the mean, without an interval"


def test_cuts_that_do_not_begin_with_the_first_layer_and_layers_of_another_model_are_told():
    measured = list(range(2, LAYERS))
    assert re.search(r"\b2\b.*\b0\b", answer(measured=measured).reason)
    with pytest.raises(ValueError, match=r"\b7\b.*\b0 .*\b3\b"):
        split(fake_evidence.datasets(), 4)
    with pytest.raises(ValueError):
        Context(fake_evidence.datasets(measured=measured)["cut"])


def test_runs_of_different_clips_are_not_mixed():
    mixed = fake_evidence.datasets() | {"reuse": fake_evidence.datasets(clips=6)["reuse"]}
    with pytest.raises(ValueError, match=r"\b6 .*\b8\b"):
        split(mixed, LAYERS)


# Where to cut


def test_the_depth_is_where_the_share_is_reached_for_good():
    kept = np.array([[0.1, 0.95, 0.5, 0.92, 0.99], [0.1, 0.2, 0.3, 0.4, 0.5]])
    assert depth_from(kept, np.arange(1, 6), 0.9, none=6).tolist() == [4, 6]


def test_a_split_needs_both_ends_where_both_ends_work_at_every_step():
    found = answer(own_work={0: 0.5, 1: 0.3, 2: 0.02, 4: 0.4, 6: 0.3, 7: 0.5}, live=[0.0] * 6 + [1.0] * 3)
    assert found.cut is not None and found.cut.encoder_layers == 6
    assert (found.cut.head, found.cut.tail) == ([0, 1], [6, 7])
    assert any(re.search(r"\b4\b", remark) for remark in found.remarks)


def test_where_fetching_once_does_not_serve_every_layer_that_fetches_runs_at_every_step():
    work = dict.fromkeys(range(LAYERS), 0.0) | {0: 0.5}
    served, unserved = (answer(once=kept, live=EVERY_LAYER, own_work=work) for kept in (0.7, 0.3))
    assert (served.curves.work[1]["own_work"][0] > 0.1).sum() == 1
    assert (unserved.curves.work[1]["own_work"][0] > 0.1).all()


def test_an_answer_that_tracks_the_threshold_is_said_to():
    found = answer(layers=20, once=1.0, live=list(np.linspace(0, 1, 21)), wobble=0.001)
    assert found.sweep.spread == 5 and found.sweep.tracks_threshold
    partly = answer(once=0.82, wobble=0.001).sweep
    assert partly.tracks_threshold and re.search(r"\b70 .*\b80 %", partly.sentence)
    assert answer(once=0.3).sweep.found == []


def test_a_depth_beyond_the_layers_is_no_depth():
    sweep = {"threshold": [0.7, 0.8, 0.9], "encoder_layers": [3, 9, 9], "low": [3, 7, 9], "high": [4, 9, 9]}
    sweep |= {"live": [2, None, 8], "decoder": [[0], None, None], "said": ""}
    sweep |= {"spread": 4, "tracks_threshold": True}
    invented = fake_interventions.plan({"layer": LAYERS, "clip": 5})
    page = "".join(sweep_parts(replace(invented, sweep=typed.build(PlannedSweep, sweep))))
    for cell in (r"3 \[3 [a-z]+ 4\]", r"[a-z ]+ \[7 [a-z ]+\]", "[a-z ]+", "–", "8"):
        assert re.search(f"<td>{cell}</td>", page), cell
    assert "[9" not in page


def test_layers_that_were_not_measured_are_not_said_to_be_needed():
    measured = [0, 2, 4, 6, 7]
    work = {0: 0.5, 2: 0.5, 4: 0.5, 6: 0.5, 7: 0.6}
    found = answer(measured=measured, own_work=work, live=[0.0] * 4 + [1.0] * 5)
    assert passed(found)["decoder"] is None and found.verdict == "open"
    assert any(re.search(r"\b3 .*\b8 ", remark) for remark in found.remarks)


def test_the_interval_of_a_ratio_is_that_of_a_ratio_of_means():
    data = fake_evidence.datasets(wobble=0.0, once=0.8)
    kept = summary(Context(data["cut"]).worse(data["reuse"], kind="cross", layer=7, start=0))
    np.testing.assert_allclose(kept, [0.8] * 3, atol=1e-9)


# Networks whose use of the past is known, through the experiments


@pytest.fixture
def fewer_noise_levels(monkeypatch):
    """Than in earnest."""
    monkeypatch.setattr(probed_clip, "LEVELS", 2)
    monkeypatch.setattr(noise_invariance, "SIGMAS", (1.0,))


def evidence(network, clips):
    """The datasets of CLIPS clips by the experiments themselves."""
    settings = Settings(clips=CLIPS, context=1, steps=2, frames=FRAMES, starts=(0,), probed=1, quick=True)
    networks = {"trained": network, "random": copy_shuffled(network, 0)}
    found = []
    for index in range(CLIPS):
        own, other = (Clip(clips(FRAMES, seed), None) for seed in (index, index + 100))
        about = probed_clip.ProbedClip(index, networks, own, other, settings, FRAMES)
        found.append({})
        for name in DATASETS:
            found[-1] |= load(name).measure(about)
    return {
        name: xr.concat([each[name] for each in found], "clip", data_vars="minimal", combine_attrs="override")
        for name in (*DATASETS, *NEWER)
    }


@pytest.mark.slow
def test_random_weights_are_not_separable(fewer_noise_levels):
    network = tiny.model(layers=2, channels=1)
    network.source = Source()
    found = split(evidence(network, by_hand.clip), 2)
    assert found.verdict == NOT and passed(found)["predicts"] is False


@pytest.mark.slow
def test_a_network_that_needs_its_past_at_every_step_and_layer_is_not_separable(fewer_noise_levels):
    found = split(evidence(by_hand.entangled(), by_hand.clip), by_hand.LAYERS)
    assert found.verdict == NOT
    outcome = passed(found)
    assert outcome["predicts"] and outcome["controls"] and outcome["uses_past"] and outcome["own_past"]
    assert outcome["once"] is False and outcome["depth"] is False


@pytest.mark.slow
def test_a_network_that_fetches_its_past_in_the_first_layer_is_separable(fewer_noise_levels):
    found = split(evidence(by_hand.separable(), by_hand.clip), by_hand.LAYERS)
    assert found.verdict == "separable", found.reason
    assert found.cut is not None and found.cut.encoder_layers == 1 and found.cut.head == []


@pytest.mark.slow
def test_a_network_that_needs_its_past_late_only_gets_no_split_and_is_told_so(fewer_noise_levels):
    found = split(evidence(by_hand.late(), by_hand.clip), by_hand.LAYERS)
    outcome = passed(found)
    assert outcome["controls"] and outcome["uses_past"] and outcome["own_past"], found.reason
    assert outcome["once"] is False and outcome["depth"] and found.verdict == "partly separable"
    assert found.cut is None and re.search("needed late only.*no split is placed", found.reason)


@pytest.mark.slow
def test_a_network_that_ignores_its_past_is_said_to(fewer_noise_levels):
    found = split(evidence(by_hand.forgetful(), by_hand.clip), by_hand.LAYERS)
    outcome = passed(found)
    assert outcome["controls"] and outcome["uses_past"] is False and outcome["own_past"] is None
    assert found.verdict == NOT and "control failed" not in found.reason


def test_where_nothing_changes_without_the_past_the_reason_is_that_it_is_not_used():
    data = fake_evidence.datasets(benefit=0.0, failing="own_frame_only")
    assert split(data, LAYERS).verdict == "open"
    data["controls"]["past_effect"] = ("clip", np.zeros(8))
    found = split(data, LAYERS)
    assert passed(found)["controls"] and found.verdict == NOT
    assert "does not use its past" in found.reason and "do not apply" in found.tests[0].measured


def test_whose_past_it_is_is_measured_with_that_past_at_every_step_where_a_run_has_it():
    data = fake_evidence.datasets(other_clip=-0.5)
    cut = data["cut"].sel(network="trained", where="from")
    data["other_past"] = cut[["mse", "velocity_error"]].sel(layer=LAYERS - 1)  # as good as its own past
    found = split(data, LAYERS)
    assert passed(found)["own_past"] is False and found.verdict == NOT


# The command


@pytest.fixture(autouse=True)
def briefly(monkeypatch):
    """Rates that need not be right."""
    monkeypatch.setattr(calibration, "ROUNDS", 1)
    monkeypatch.setitem(calibration.COPIED_BYTES, "cpu", 1024)


def counted(prediction):
    """What of a prediction is arithmetic: all but what was measured."""
    rows = [{k: v for k, v in row.items() if k != "clock_speed_up"} for row in prediction["nearby"]]
    return {k: v for k, v in prediction.items() if k != "clock"} | {"nearby": rows}


@pytest.fixture
def runs(tmp_path):
    """A model's checkpoint, and a finished run of it."""
    network = tiny.model(layers=LAYERS)
    checkpoint = tiny.checkpoint(tmp_path / "mine.safetensors", network)
    geometry = vars(network.geometry) | {"tokens_per_frame": network.geometry.tokens_per_frame}
    model = {"name": "mine", "network": "dense", "videos": None, "geometry": geometry}
    settings = {"clips": 8, "steps": 20, "frames": 10}
    manifest = fake_manifest.probe(model, settings, loaded_from="my.pt")

    def write(name="default", changes=None, **chosen):
        folder = tmp_path / "runs" / "mine" / name
        fake_evidence.write(folder, fake_evidence.datasets(**chosen), manifest | (changes or {}))
        return folder

    write.command = ["--model", str(checkpoint), "--runs", str(tmp_path / "runs")]
    write.command += ["--steps", "50", "--history", "16"]
    write.network, write.manifest = network, manifest
    return write


@pytest.mark.slow
def test_a_plan_is_printed_and_its_architecture_is_accepted(runs, tmp_path, capsys, monkeypatch):
    runs()
    out = tmp_path / "plan.json"
    assert plan.main([*runs.command, "--out", str(out), "--fusion", "token_concat"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("mine: SEPARABLE") and printed.endswith(f"{out}\n")
    assert re.search(r"\b0 [a-z]+ 3 [a-z]+ 7\b", printed)
    found = json.loads(out.read_text())
    assert found["architecture"] == {"encoder_layers": 3, "decoder_layers": 6, "fusion": "token_concat"}
    assert scd.config("tiny", **found["architecture"]).encoder_layers == 3
    options = ["--model", "scd-tiles", "--plan", str(out), "--set", "decoder_layers=2"]
    recipe = training._recipe(training.parser().parse_args(options))
    planned = {"encoder_layers": 3, "decoder_layers": 2, "fusion": "token_concat"}
    assert recipe.architecture == planned | {"query": "noise", "start_token": False}


@pytest.mark.slow
def test_a_plan_without_a_split_trains_nothing(runs, tmp_path, capsys):
    runs(random_error=0.1)
    assert plan.main(runs.command) == 0
    out = tmp_path / "runs" / "mine" / "default" / "plan.json"
    found = json.loads(out.read_text())
    assert (found["verdict"], found["architecture"], found["prediction"]) == (NOT, None, None)
    for file, model, line in [
        (out, "scd-tiles", "not separable"),
        (out, "dense-tiles", r"\bscd\b"),
        (out.with_name("manifest.json"), "scd-tiles", "manifest.json"),
        (out.with_name("cut.nc"), "scd-tiles", "cut.nc"),
        (out.with_name("none.json"), "scd-tiles", "none.json"),
    ]:
        assert training.main(["--model", model, "--plan", str(file), "--out", str(tmp_path / "t")]) == 2
        error = capsys.readouterr().err
        assert re.search(line, error) and error.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("chosen", [{"failing": "own_frame_only"}, {"benefit": 0.05}, {"clips": 4}])
def test_a_plan_that_is_not_decided_shows_no_split_and_is_refused(runs, tmp_path, capsys, chosen):
    runs(**chosen)
    out = tmp_path / "plan.json"
    assert plan.main([*runs.command, "--out", str(out)]) == 0
    printed, found = capsys.readouterr().out, json.loads(out.read_text())
    assert found["verdict"] == "open" and re.search(r"\d|control", printed)
    assert {found[name] for name in ("split", "architecture", "acting", "prediction")} == {None}
    assert "To decide: " in "".join(split_parts(Plan.read(out)))
    assert training.main(["--model", "split-tiles", "--plan", str(out), "--out", str(tmp_path / "t")]) == 2
    assert "open" in capsys.readouterr().err
    assert scd_bench.main(["--plan", str(out)]) == 2
    error = capsys.readouterr().err
    assert re.search("mine .*open", error) and error.count("\n") == 1


@pytest.mark.slow
def test_a_split_that_more_measurements_may_move_is_provisional(runs, capsys):
    folder = runs()
    (folder / "noise_invariance.nc").unlink()
    assert plan.main(runs.command) == 0
    found, printed = json.loads((folder / "plan.json").read_text()), capsys.readouterr().out
    assert found["split"]["is_provisional"] and found["architecture"]
    shown = "".join(split_parts(Plan.read(folder / "plan.json")))
    assert "provisional" in printed and "provisional" in shown


@pytest.mark.slow
def test_a_plan_says_how_to_act_on_it(runs, tmp_path, capsys):
    model = runs.manifest["model"] | {"videos": "tiles"}
    runs(changes={"model": model})
    out = tmp_path / "plan.json"
    assert plan.main([*runs.command, "--out", str(out)]) == 0
    said = json.loads(out.read_text())["acting"]
    assert said in capsys.readouterr().out
    make, train, model, arguments = shlex.split(said)
    assert (make, train, model) == ("make", "train", "MODEL=split-tiles")
    options = shlex.split(arguments.removeprefix("ARGS="))
    recipe = training._recipe(training.parser().parse_args(["--model", "split-tiles", *options]))
    assert recipe.initial == "my.pt" and recipe.architecture["encoder_layers"] == 3
    theirs = scd.Config.from_values(scd.config("tiny").values() | recipe.architecture).values()
    assert {k: v for k, v in runs.network.describe().items() if theirs.get(k, v) != v}.keys() <= {*OF_WORLDS}
    found = json.loads(write_plan(runs("other"), runs.network).read_text())
    assert re.search(r"\b0 \D+2 \D+0 \D+3 \D+7\b", found["acting"])


@pytest.mark.parametrize("world", SPLIT_WORLDS)
def test_every_world_has_the_recipe_that_a_plan_names(world):
    recipe = RECIPES[split_recipe(world)]
    assert (recipe.network, recipe.videos, recipe.initial) == ("scd", world, f"dense-{world}")


@pytest.mark.slow
def test_the_prediction_is_the_cost_models_at_the_users_place(runs, tmp_path):
    runs()
    out = tmp_path / "plan.json"
    places = ["--tokens", "100", "--batch", "3", "--dtype", "bfloat16"]
    assert plan.main([*runs.command, *places, "--out", str(out)]) == 0
    planned = json.loads(out.read_text())
    found, built = planned["prediction"], planned["architecture"]
    split = {"encoder_layers": 3, "decoder_layers": 6, "fusion": "residual", "head": 1}
    assert built == split | {"query": "noise", "start_token": False}
    whole = operations.shape_of(runs.network.config, tokens=100, batch=3, value_bytes=2)
    own = {k: v for k, v in runs.network.describe().items() if k != "layers"}
    twin = operations.shape_of(scd.Config.from_values(own | built), tokens=100, batch=3, value_bytes=2)
    assert separated_shape(whole, 3, 6, "residual") == twin
    prefix = own | {"encoder_layers": 3, "decoder_layers": 6, "fusion": "prefix"}
    other = operations.shape_of(scd.Config.from_values(prefix), tokens=100, batch=3, value_bytes=2)
    assert separated_shape(whole, 3, 6, "prefix") == other
    assert found["speed_up"] == pytest.approx(operations.predicted_speed_up(whole, twin, 50, 16))
    once = replace(whole, past_layers=3)
    assert found["fetched_once"] == pytest.approx(operations.predicted_speed_up(whole, once, 50, 16))
    assert f"(framelens.fetch_once): {found['fetched_once']:.2f} times" in text(Plan.read(out))
    assert found["cache_bytes"] == operations.cache_bytes(twin, 16)
    chosen = [row for row in found["nearby"] if row["chosen"]]
    assert len(found["nearby"]) > 3 and chosen[0]["speed_up"] == found["speed_up"]
    assert chosen[0]["kept"]["mean"] == pytest.approx(0.97, abs=0.03)


def test_without_a_configuration_the_geometry_stands_in(runs):
    geometry = vars(runs.network.geometry) | {"tokens_per_frame": 4}
    use = Use(steps=4, history=2)
    assert shape_in_use(None, geometry, use) == shape_in_use(runs.network.config, geometry, use)


@pytest.mark.slow
def test_a_clock_predicts_seconds(runs, tmp_path, capsys):
    runs()
    bench = tmp_path / "bench"
    bench.mkdir()
    command = [*runs.command, "--clock", str(bench), "--out", str(tmp_path / "plan.json")]
    assert plan.main(command) == 2 and "framelens bench scd" in capsys.readouterr().err
    rates = vars(Machine(1e12, 1e12, 1e15, 0.0, False))
    where = {"device": "cuda", "dtype": "float32", "threads": 4}
    shipped = BenchManifest.read(ROOT / "reports" / "gallery" / "bench-tiny-manifest.json")
    shipped = replace(shipped, machine=rates | {"device_name": "a card"}, settings=where)
    shipped.write(bench / "manifest.json")
    assert plan.main(command) == 0
    assert re.search("a card.*float32", capsys.readouterr().out)
    found = json.loads((tmp_path / "plan.json").read_text())["prediction"]
    assert found["clock"]["machine"] == rates and where.items() <= found["clock"].items()
    assert found["clock"]["speed_up"] == pytest.approx(found["speed_up"])
    assert found["clock"]["frame_seconds"] == pytest.approx(found["frame_flops"] / 1e12)
    replace(shipped, machine={}).write(bench / "manifest.json")
    with pytest.raises(ValueError, match="flops_per_second"):
        Clock.read(bench)
    (bench / "manifest.json").write_text("{}")
    with pytest.raises(ValueError, match="bench"):
        Clock.read(bench)


@pytest.mark.slow
def test_rates_are_measured_unless_they_are_not_wanted(runs, tmp_path, capsys):
    runs()
    out = tmp_path / "plan.json"
    assert plan.main([*runs.command, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert (tmp_path / "plan.json").name in printed
    found = json.loads(out.read_text())["prediction"]
    clock = found["clock"]
    assert clock["speed_up"] == pytest.approx(clock["dense_frame_seconds"] / clock["frame_seconds"])
    assert (clock["device"], clock["dtype"], clock["threads"]) == ("cpu", "float32", torch.get_num_threads())
    whole, machine = operations.shape_of(runs.network.config), Machine(**clock["machine"])
    assert clock["dense_frame_seconds"] == pytest.approx(machine.frame_seconds(whole, 50, 16))
    assert next(row for row in found["nearby"] if row["chosen"])["clock_speed_up"] == clock["speed_up"]
    assert plan.main([*runs.command, "--out", str(out), "--no-clock"]) == 0
    assert json.loads(out.read_text())["prediction"] == counted(found) | {
        "clock": None, "nearby": [row | {"clock_speed_up": None} for row in counted(found)["nearby"]],
    }  # fmt: skip


@pytest.mark.slow
def test_a_full_device_leaves_a_finished_run_a_plan_by_operations(runs, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(calibration, "calibrate", full)
    found = json.loads(write_plan(runs(), runs.network).read_text())
    assert found["prediction"]["clock"] is None and found["prediction"]["speed_up"] > 1
    assert found["remarks"]


@pytest.mark.slow
def test_the_largest_finished_run_is_taken_or_the_one_that_is_named(runs, tmp_path):
    settings = runs.manifest["settings"] | {"clips": 20, "quick": True}
    runs("default")
    runs("quick", {"settings": settings}, random_error=0.1)
    runs("unfinished", {"complete": False, "settings": settings | {"quick": False}})
    runs("old", {"format": 0, "settings": settings | {"quick": False}})
    out = tmp_path / "plan.json"
    for named, folder in ([], "default"), (["--run", "quick"], "quick"):
        assert plan.main([*runs.command, *named, "--out", str(out)]) == 0
        assert json.loads(out.read_text())["run"]["folder"].endswith(folder)


def test_a_run_of_an_older_version_is_named_where_there_is_no_other(runs, capsys):
    folder = runs("old", {"format": 0})
    assert plan.main(runs.command) == 2
    error = capsys.readouterr().err
    assert str(folder) in error and error.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--steps", "0"], "--steps .* 1.* 0"),
        (["--history", "0"], "--history .* 1.* 0"),
        (["--tokens", "-1"], "--tokens .* 1.* -1"),
        (["--batch", "0"], "--batch .* 1.* 0"),
        (["--threads", "0"], "--threads .* 1.* 0"),
        (["--device", "tpu"], "'tpu'"),
        (["--fusion", "sum"], "'sum'.*token_concat"),
        (["--run", "other"], "'other'.*mine"),
        (["--runs", "nowhere"], "mine .*nowhere.*framelens probe --model"),
        (["--model", "dense-tilse"], "'dense-tilse'"),
    ],
)
def test_what_cannot_be_planned_is_one_line(runs, capsys, arguments, line):
    runs()
    assert plan.main([*runs.command, *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("framelens plan: ") and re.search(line, error) and error.count("\n") == 1


@pytest.mark.slow
def test_a_run_of_another_model_and_an_unfinished_one_are_refused(runs, capsys):
    folder = runs("other", {"model": runs.manifest["model"] | {"name": "theirs"}})
    assert plan.main([*runs.command, "--run", str(folder)]) == 2
    assert re.search("theirs.*mine", capsys.readouterr().err)
    folder = runs("unfinished", {"complete": False})
    assert plan.main([*runs.command, "--run", str(folder)]) == 2
    assert "unfinished" in capsys.readouterr().err


@pytest.mark.slow
def test_a_complete_run_gets_its_plan_and_one_without_cuts_none(runs):
    folder = runs()
    path = write_plan(folder, runs.network)
    assert path == folder / "plan.json"
    found = json.loads(path.read_text())
    assert [test["name"] for test in found["tests"]] == [question.name for question in QUESTIONS]
    assert (found["prediction"]["steps"], found["prediction"]["history"]) == (20, 9)
    (folder / "cut.nc").unlink()
    assert write_plan(folder, runs.network) is None


def test_a_plan_with_options_is_not_replaced_by_the_plan_of_a_run(runs):
    folder = runs()
    assert plan.main([*runs.command, "--run", "default", "--no-clock"]) == 0
    asked = (folder / "plan.json").read_bytes()
    assert write_plan(folder, runs.network) == folder / "plan.json"
    assert (folder / "plan.json").read_bytes() == asked
    assert json.loads(asked)["prediction"]["steps"] == 50


@pytest.mark.slow
def test_a_separated_model_is_separable_by_construction(runs):
    config = scd.config("tiny", encoder_layers=5, decoder_layers=3, fusion="add")
    model = tiny.said(config=config)
    found = json.loads(write_plan(runs(), model).read_text())
    assert found["verdict"] == "separable"
    assert scd.config("tiny", **found["architecture"]) == config
    twins = dense.config("tiny", layers=8), config
    shapes = [operations.shape_of(each) for each in twins]
    assert found["prediction"]["speed_up"] == pytest.approx(operations.predicted_speed_up(*shapes, 20, 9))


@pytest.mark.slow
def test_a_model_that_does_not_say_what_costs_are_counted_from_gets_a_verdict_all_the_same(runs):
    said = {name: value for name, value in runs.network.describe().items() if name != "window"}
    model = tiny.said(config={"some": "others"}, describe=lambda self: said)
    folder = runs()
    found = json.loads(write_plan(folder, model).read_text())
    assert found["verdict"] == "separable" and found["architecture"] and found["prediction"] is None
    assert "window" in found["remarks"][-1]
    whole = tiny.said(describe=lambda self: runs.network.describe())
    plans = [write_plan(folder, model).read_text() for model in (whole, runs.network)]
    theirs, ours = (counted(json.loads(each)["prediction"]) for each in plans)
    assert theirs == ours


@pytest.mark.slow
def test_frames_that_are_made_together_count_as_one(runs):
    geometry = vars(runs.network.geometry) | {"tokens_per_frame": 4, "frames_per_chunk": 3}
    shape = shape_in_use(dense.config("tiny", window=7, sink=2), geometry, Use(steps=4, history=2))
    assert (shape.tokens, shape.window, shape.sink) == (3 * 25, 2, 1)
    folder = runs(changes={"model": runs.manifest["model"] | {"geometry": geometry}})
    found = json.loads(write_plan(folder, runs.network).read_text())
    assert (found["prediction"]["history"], found["prediction"]["tokens"]) == (2, 12)
    assert re.search(r"\b2 .*\b12 ", text(Plan.read(folder / "plan.json")))


@pytest.mark.slow
def test_a_plan_is_told_what_its_run_was_told(runs, capsys):
    runs(changes={"settings": runs.manifest["settings"] | {"set": {"window": 3}}})
    assert plan.main([*runs.command, "--set", "window=3"]) == 0
    assert plan.main(runs.command) == 0, "as in the run"
    assert plan.main([*runs.command, "--set", "window=4"]) == 2
    assert "mine" in capsys.readouterr().err
