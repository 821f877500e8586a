"""Scores of a trained model: against copies, by memory, over a free run, guided and with bounded context."""

import json
import re
import shlex

import pytest
import tiny
import tiny_scd

from framelens import models
from framelens.models.loading import checkpoint
from framelens.training import evaluate

PSNR = "PSNR of the model (dB)"
SHORT = ["--clips", "2", "--steps", "2", "--context", "2"]


@pytest.fixture
def dense(tmp_path):
    return str(tiny.checkpoint(tmp_path / "model.safetensors", frames=4))


@pytest.fixture
def separated(tmp_path):
    network = tiny_scd.model("prefix", 5, height=20, width=20)
    described = tiny.metadata(network, frames=4) | {"network": "scd"}
    checkpoint.write(tmp_path / "scd.safetensors", network.state_dict(), described)
    return str(tmp_path / "scd.safetensors")


def scores(capsys, *arguments):
    assert evaluate.main([*arguments, *SHORT]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_a_model_is_scored_against_copies_by_memory_and_over_a_free_run(dense, capsys):
    result = scores(capsys, "--model", dense)
    assert len(result) == 20 and all(isinstance(value, float) for value in result.values())
    assert list(result.values())[-1] >= 0


def test_a_file_of_scores_holds_what_is_needed_to_repeat_them(dense, tmp_path, capsys):
    out = tmp_path / "kept" / "scores.json"
    printed = scores(capsys, "--model", dense, "--cut-from", "1", "--seed", "3", "--out", str(out))
    held = json.loads(out.read_text())
    assert held["scores"] == printed and len(printed) == 2
    assert held["settings"]["seed"] == 3 and held["settings"]["cut_from"] == 1
    source = models.load(dense).source
    assert held["models"] == {
        dense: held["models"][dense] | {"sha256": source.sha256, "training": source.metadata["training"]}
    }
    assert held["versions"].keys() >= {"python", "torch"} and "git_commit" in held
    again = str(tmp_path / "again.json")
    command = shlex.split(held["command"])
    assert command[:2] == ["framelens", "evaluate"]
    assert evaluate.main([again if part == str(out) else part for part in command[2:]]) == 0
    assert json.loads((tmp_path / "again.json").read_text())["scores"] == printed


def test_a_file_of_scores_holds_intervals_numbers_of_clips_and_drift(dense, tmp_path, capsys):
    out = tmp_path / "scores.json"
    request = ["--model", dense, "--clips", "5", "--steps", "1", "--context", "2", "--out", str(out)]
    assert evaluate.main(request) == 0
    lines = capsys.readouterr().out.splitlines()
    held = json.loads(out.read_text())
    measures = held["measures"][dense]
    assert {name: measures[name]["mean"] for name in held["scores"][dense]} == json.loads(lines[-1])
    found = measures[PSNR]
    assert found["low"] < found["mean"] < found["high"] and found["clips"] == 5
    assert f"[{found['low']:.4f}, {found['high']:.4f}]" in next(
        line for line in lines if line.startswith(PSNR)
    )
    drift = measures["PSNR of a free run (dB)"]
    assert [frame["frame"] for frame in drift] == [2, 3]
    last = held["scores"][dense]["PSNR of a free run, last frame (dB)"]
    assert drift[-1]["mean"] == last and drift[-1]["clips"] == 5


def test_a_seed_decides_the_noise(dense, capsys):
    name, copied = "PSNR of the model (dB)", "PSNR of the copy of the last frame (dB)"
    first, same, other = (scores(capsys, "--model", dense, "--seed", seed) for seed in ("3", "3", "4"))
    assert first == same and first[name] != other[name] and first[copied] == other[copied]


@pytest.mark.slow
def test_guidance_and_a_window_change_what_is_drawn(separated, capsys):
    plain = scores(capsys, "--model", separated)
    changed = [["--guidance", "3"], ["--guidance", "3", "--negative", "context"], ["--window", "1"]]
    name = PSNR
    assert len({plain[name], *(scores(capsys, "--model", separated, *c)[name] for c in changed)}) == 4
    assert scores(capsys, "--model", separated, "--window", "9", "--sink", "1") == plain


def test_a_model_that_fetches_the_past_once_is_scored_beside_the_whole_one(dense, capsys):
    whole = scores(capsys, "--model", dense)
    for layers, merge in (("all", "softmax"), ("1", "sum")):
        both = scores(capsys, "--model", dense, "--fetch-once", layers, "--merge", merge)
        name = f"{dense}, past fetched once by layers: {layers} ({merge})"
        assert list(both) == [dense, name] and both[dense] == whole
        assert both[name][PSNR] != whole[PSNR]
    both = scores(capsys, "--model", dense, "--fetch-once", "all", "--refresh", "1")
    assert list(both.values()) == [whole, whole]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--fetch-once", "3"], "the cut must be 0 to 2"),
        (["--fetch-once", "-1"], "the cut must be 0 to 2"),
        (["--fetch-once", "no/plan.json"], "no/plan.json"),
        (["--fetch-once", "all", "--refresh", "0"], "refresh must be at least 1 step, got 0"),
        (["--refresh", "2"], "--refresh is of --fetch-once"),
        (["--merge", "sum"], "--merge is of --fetch-once"),
    ],
)
def test_a_request_to_fetch_once_that_does_not_fit_gets_one_line(dense, capsys, options, message):
    assert evaluate.main(["--model", dense, *options, *SHORT]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_a_cut_model_is_scored_beside_the_whole_one(dense, capsys):
    whole = scores(capsys, "--model", dense)
    both = scores(capsys, "--model", dense, "--cut-from", "0")
    assert list(both) == [dense, f"{dense}, cut from 0"] and both[dense] == whole
    unaffected = {name for name in whole if whole[name] == both[f"{dense}, cut from 0"][name]}
    assert len(unaffected) == 6 and not {PSNR} & unaffected, "copies need no network"


def test_several_models_are_columns_with_numbers(dense, separated, capsys):
    assert evaluate.main(["--model", dense, separated, *SHORT]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [f"(1) {dense}", f"(2) {separated}"] and lines[2].split() == ["(1)", "(2)"]
    both = json.loads(lines[-1])
    psnr = next(line for line in lines if line.startswith(PSNR))
    assert [float(value) for value in psnr.split()[-2:]] == [both[name][PSNR] for name in (dense, separated)]


def test_only_layers_that_a_dense_model_has_can_be_cut(dense, separated, capsys):
    for model, layer, line in (
        (separated, "0", "SCD"),
        (dense, "9", r"\b0 .*\b1\b.*\b9\b"),
    ):
        assert evaluate.main(["--model", model, *SHORT, "--cut-from", layer]) == 2
        assert re.search(line, capsys.readouterr().err)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--context", "4"], "--context.* 4 .* 4"),
        (["--guidance", "2", "--negative", "context"], "."),
        (["--seed", "-1"], "--seed.* 0.* -1"),
        (["--frames", "0"], "--frames.* 1.* 0"),
        (["--out", "."], r"--out \. .*JSON"),
        (["--window", "0"], " 1 .* 0"),
        (["--predict", "0"], "--predict must be from 1 .* got 0"),
        (["--predict", "2", "--frames", "4"], "--predict and --frames both say"),
        (["--best-of", "0"], "--best-of must be from 1 to 1000, got 0"),
    ],
)
def test_what_cannot_be_scored_is_one_line(dense, capsys, options, line):
    assert evaluate.main(["--model", dense, *SHORT, *options]) == 2
    error = capsys.readouterr().err
    assert re.search(line, error) and error.count("\n") == 1


def test_a_bounded_context_is_kept_when_a_model_is_saved(separated, tmp_path):
    models.save(models.load(separated, window=2, sink=1), tmp_path / "bounded.safetensors")
    config = models.load(str(tmp_path / "bounded.safetensors")).config
    assert (config.window, config.sink) == (2, 1)


def test_the_first_generated_chunk_may_take_more_steps(dense, capsys):
    def of(steps):
        arguments = ["--model", dense, "--clips", "2", "--context", "2", "--steps", steps]
        assert evaluate.main(arguments) == 0
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    assert of("2,2") == of("2") and of("4,2") != of("2")


@pytest.mark.parametrize("steps", ["4,2,1", "x", "4,", "0,2", "4,-1", "4;2", "99999"])
def test_steps_that_are_unclear_are_refused_in_one_line(dense, capsys, steps):
    assert evaluate.main(["--model", dense, f"--steps={steps}"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("framelens evaluate: --steps ") and error.count("\n") == 1


def test_given_and_predicted_frames_and_the_best_of_some_runs_give_a_table_by_frame(dense, tmp_path, capsys):
    out = tmp_path / "scores.json"
    request = ["--model", dense, "--clips", "2", "--steps", "1", "--context", "2", "--predict", "3"]
    assert evaluate.main([*request, "--best-of", "3", "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    held = json.loads(out.read_text())
    assert (held["settings"]["predict"], held["settings"]["best_of"]) == (3, 3)
    name = "PSNR (dB) of a free run, best of 3"
    table = held["measures"][dense][name]
    assert [row["frame"] for row in table] == [2, 3, 4]
    mean = held["scores"][dense][f"{name}, mean of 3 frames"]
    assert mean == pytest.approx(sum(row["mean"] for row in table) / 3, abs=1e-3)
    head = next(index for index, line in enumerate(lines) if line.startswith(f"{dense}, frame"))
    assert name in lines[head] and [line.split()[0] for line in lines[head + 1 : head + 4]] == ["2", "3", "4"]
