"""The benchmark of a GPU: what fits into the time is measured, kept as it comes, and resumed; a rehearsal on
a CPU runs every section and says so."""

import json
import re
import signal
import time

import pytest
import torch
from refusals import assert_refused

from framelens.benchmarks.gpu.__main__ import PRESETS, main
from framelens.benchmarks.gpu.day import FILE, Day
from framelens.benchmarks.gpu.readings import CannotMeasure, Reading, read_rounds
from framelens.benchmarks.gpu.sections import Section, sections
from framelens.benchmarks.gpu.sizes import full_sizes, toy_sizes
from framelens.benchmarks.gpu.training_step import AVERAGE, estimate_bytes
from framelens.benchmarks.scd import memory
from framelens.models.cost import calibration

SIZES = full_sizes("cuda", ["minecraft"])
ABOUT = {"command": "framelens bench gpu", "created": "today", "git_commit": None, "versions": {}}


class Clock:
    """A clock that sections move."""

    now = 0.0

    def __call__(self):
        return self.now


def section(name, seconds, clock, done, outcome=None):
    """A section that takes its estimated time; `outcome` is raised."""

    def measure(sizes, out):
        clock.now += seconds
        done.append(name)
        if outcome is not None:
            raise outcome
        return [Reading(f"value of {name}", 1.5, "s", 1.0, 2.0, "beside | it")]

    return Section(name, f"Title of {name}", seconds, measure)


def day(out, card="NVIDIA H100"):
    return Day(out, SIZES, card, ABOUT)


def statuses(out):
    return {name: each["status"] for name, each in json.loads((out / FILE).read_text())["sections"].items()}


def test_what_does_not_fit_into_the_time_is_listed_and_a_shorter_section_after_it_is_measured(tmp_path):
    clock, done = Clock(), []
    planned = [section(name, seconds, clock, done) for name, seconds in (("a", 60), ("b", 50), ("c", 30))]
    assert day(tmp_path).measure(planned, 100, clock)
    assert done == ["a", "c"]
    assert statuses(tmp_path) == {"a": "measured", "b": "not measured", "c": "measured"}
    table = (tmp_path / "gpu.md").read_text()
    assert re.search(r"not measured: no time left: .*\b50 seconds, 40 ", table)
    assert "| value of a | 1.5 [1, 2] s | beside \\| it |" in table and "NVIDIA H100" in table
    assert "NVIDIA H100" in (tmp_path / "page.html").read_text()


def test_the_same_folder_again_measures_what_is_missing(tmp_path):
    clock, done = Clock(), []
    planned = [section(name, 60, clock, done) for name in "ab"]
    day(tmp_path).measure(planned, 100, clock)
    day(tmp_path).measure(planned, 100, clock)
    assert done == ["a", "b"] and set(statuses(tmp_path).values()) == {"measured"}
    day(tmp_path).measure(planned, 1, clock)
    assert done == ["a", "b"], "nothing is missing, so no budget is too short"


def test_a_section_that_fails_costs_the_others_nothing_and_is_tried_again(tmp_path):
    clock, done = Clock(), []
    planned = [
        section("a", 10, clock, done, RuntimeError("CUDA error: no kernel image")),
        section("b", 10, clock, done, CannotMeasure("it needs c")),
        section("c", 10, clock, done),
    ]
    assert not day(tmp_path).measure(planned, 100, clock)
    assert statuses(tmp_path) == {"a": "failed", "b": "not measured", "c": "measured"}
    table = (tmp_path / "gpu.md").read_text()
    assert (
        "failed: RuntimeError: CUDA error: no kernel image" in table and "not measured: it needs c" in table
    )
    day(tmp_path).measure(planned, 100, clock)
    assert done == ["a", "b", "c", "a", "b"]


def test_a_section_that_takes_longer_than_all_that_is_left_is_stopped(tmp_path):
    done = []

    def measure(sizes, out):
        time.sleep(60)

    planned = [Section("a", "A", 0.1, measure), section("b", 0.5, Clock(), done)]
    began = time.perf_counter()
    assert day(tmp_path).measure(planned, 1)
    assert time.perf_counter() - began < 30 and not done
    assert statuses(tmp_path) == {"a": "not measured", "b": "not measured"}
    assert "no time left: it was stopped after 1 seconds" in (tmp_path / "gpu.md").read_text()
    assert signal.getsignal(signal.SIGALRM) == signal.SIG_DFL


def test_what_is_finished_survives_an_interruption(tmp_path):
    clock, done = Clock(), []
    planned = [section("a", 1, clock, done), section("b", 1, clock, done, KeyboardInterrupt())]
    with pytest.raises(KeyboardInterrupt):
        day(tmp_path).measure(planned, 100, clock)
    assert statuses(tmp_path) == {"a": "measured"} and (tmp_path / "page.html").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_budget_that_is_too_short_for_anything_writes_nothing(tmp_path):
    clock, done = Clock(), []
    with pytest.raises(ValueError, match=r"\b30 seconds.*\b40 seconds.*--minutes"):
        day(tmp_path / "out").measure([section("a", 40, clock, done)], 30, clock)
    assert not done and not (tmp_path / "out").exists()


def test_results_of_another_card_are_refused(tmp_path):
    day(tmp_path).measure([section("a", 1, Clock(), [])], 10, Clock())
    with pytest.raises(ValueError, match="NVIDIA H100: choose another --out"):
        day(tmp_path, "NVIDIA H200")
    with pytest.raises(ValueError, match="choose another --out"):
        Day(tmp_path, toy_sizes(PRESETS), "NVIDIA H100", ABOUT)
    (tmp_path / FILE).write_text('{"kind": "probe"}')
    with pytest.raises(ValueError, match=r"gpu\.json is not of `framelens bench gpu`"):
        day(tmp_path)


@pytest.mark.slow
def test_a_rehearsal_runs_every_section_and_names_itself(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(calibration, "ROUNDS", 2)
    monkeypatch.setitem(calibration.COPIED_BYTES, "cpu", 1024)
    assert main(["--rehearse", "--out", str(tmp_path)]) == 0
    document = json.loads((tmp_path / FILE).read_text())
    assert document["is_rehearsal"] and list(document["sections"]) == [s.name for s in sections(PRESETS)]
    for name, found in document["sections"].items():
        wanted = "not measured" if name.endswith("-compile") else "measured"
        assert found["status"] == wanted, (name, found)
    title = "Rehearsal on a CPU"
    for text in (
        capsys.readouterr().out,
        (tmp_path / "gpu.md").read_text(),
        (tmp_path / "page.html").read_text(),
    ):
        assert title in text and "not numbers of a GPU" in text and "GPU benchmark" not in text
    quantities = {row["what"] for found in document["sections"].values() for row in found.get("readings", [])}
    assert {
        "attention kernels, bfloat16", "dense-tiles, float32 against the CPU", "fetch_once: speed-up",
        "paper: SCD, latency", "all statistics: time over plain", "tests marked gpu: skipped",
        "peak over estimate", "a training step", "copy bandwidth",
    } <= quantities  # fmt: skip
    assert main(["--rehearse", "--out", str(tmp_path), "--minutes", "1"]) == 0, (
        "nothing but compiling is missing"
    )


@pytest.mark.parametrize(
    ("arguments", "stated"),
    [
        ([], "no CUDA GPU.*--rehearse"),
        (["--device", "cpu"], "--device cpu.*--rehearse"),
        (["--minutes", "0"], "--minutes .* 0"),
        (["--minutes", "nan"], "--minutes .* nan"),
        (["--rehearse", "--minutes", "0.01"], "seconds are too short.*--minutes"),
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments, stated, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert_refused(main, arguments, stated, capsys, tmp_path / "out")


def test_a_preset_that_does_not_fit_the_card_is_refused_with_the_bytes(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(memory, "free_bytes", lambda device: 10**10)
    assert main(["--preset", "wan-1.3b", "--out", str(tmp_path / "out")]) == 2
    stated = capsys.readouterr().err
    assert re.search(r"wan-1\.3b .*needs \d+\.\d GB .*10\.0 GB are free", stated) and stated.count("\n") == 1


def test_the_sizes_of_a_gpu_are_those_of_the_paper():
    sizes = full_sizes("cuda", PRESETS)
    assert sizes.overhead.tokens == 1560 and sizes.overhead.config.layers == sizes.overhead.layers == 30
    assert {name: preset.steps for name, preset in sizes.presets.items()} == {"minecraft": 50, "wan-1.3b": 4}
    assert all(not values for preset in sizes.presets.values() for values in preset.varied.values())
    assert "token_concat, compile" in sizes.bench("minecraft", ("plain", "compile")).arms
    assert sum(each.seconds for each in sections(PRESETS)[:-3]) < 9 * 60


def test_a_training_step_is_compared_with_an_estimate_without_the_average():
    parts = estimate_bytes(full_sizes("cuda", PRESETS))
    assert AVERAGE in parts and sum(parts.values()) - parts[AVERAGE] < 80e9, "one card holds it"


def test_an_interval_is_that_of_the_median():
    reading = read_rounds("a frame", [0.001, 0.002, 0.003], "ms", 1000)
    assert (reading.value, reading.low, reading.high) == (2, 1, 3) and reading.text == "2 [1, 3] ms"
