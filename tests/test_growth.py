"""The benchmark of growth: a slope is that of the power, every sweep has a row, results are kept."""

import json
from functools import partial

import pandas as pd
import pytest
from refusals import assert_refused

from framelens.benchmarks.growth import sweeps
from framelens.benchmarks.growth.__main__ import FILE, main
from framelens.benchmarks.growth.slopes import Growth, table_text
from framelens.benchmarks.overhead.card import Rollout

TINY = partial(
    sweeps.Sizes, Rollout(4, 2, 2, "cpu", 0, layers=1), tokens=(4, 9), layers=(1, 2), steps=(2, 3),
    history=(1, 2), keys=(64, 128), clips=(1, 2),
)  # fmt: skip


def growth(power, rounds=3):
    values = (1, 2, 4, 8)
    costs = [[(1 + round_) * value**power for round_ in range(rounds)] for value in values]
    return Growth("time", "s", "steps", values, costs, "1")


@pytest.mark.parametrize("power", [0, 0.5, 1, 2])
def test_the_slope_of_a_power_is_that_power_whatever_the_machine(power):
    found = growth(power)
    assert found.slope == pytest.approx(power, abs=1e-12)
    assert found.interval == pytest.approx((power, power), abs=1e-12)
    assert growth(power, rounds=1).interval is None


def test_the_table_has_the_slope_its_interval_and_every_point():
    table = table_text([growth(2)], 3)
    assert "| time | steps | 2.00 [2.00, 2.00] | 1 | 1: 2 s, 2: 8 s, 4: 32 s, 8: 128 s |" in table


@pytest.mark.slow
def test_every_sweep_has_a_row_and_a_line_in_the_figure(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sweeps, "Sizes", TINY)
    asked = ["--repeats", "2", "--no-memory", "--out", str(tmp_path)]
    assert main(asked) == 0
    document = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert document == json.loads((tmp_path / FILE).read_text())
    rows = {(row["cost"], row["against"]): row for row in document["growths"]}
    rollouts = [
        (f"time of a {kind} rollout", varied) for varied in sweeps.EXPECTED for kind in ("plain", "probed")
    ]
    others = [("time of attention statistics", "keys"), ("time of a probe", "clips")]
    assert set(rows) == {*rollouts, *others, ("bytes of files for a clip", "clips")}
    assert all(len(row["medians"]) == 2 and min(row["medians"]) > 0 for row in rows.values())
    assert abs(rows["bytes of files for a clip", "clips"]["slope"]) < 0.02
    assert (tmp_path / "growth.png").exists() and (tmp_path / "growth.md").read_text().count(
        "\n| "
    ) == 1 + len(rows)
    assert len(pd.read_csv(tmp_path / "growth.csv", comment="#")) == 2 * len(rows)
    assert main(asked) == 2 and "--out" in capsys.readouterr().err


def test_memory_has_a_point_for_each_number_of_steps_and_of_clips(monkeypatch):
    monkeypatch.setattr(sweeps, "_peak", lambda function, *arguments: 1000)
    steps, clips = sweeps._memory(TINY())
    assert (steps.against, steps.values, clips.against, clips.values) == ("steps", [2, 3], "clips", [1, 2])
    assert abs(steps.slope) < 1e-12 and abs(clips.slope) < 1e-12


@pytest.mark.parametrize(
    ("arguments", "stated"), [(["--repeats", "0"], "--repeats .* 1"), (["--seed", "-1"], "--seed .* 0")]
)
def test_bad_input_is_one_line_and_status_2(arguments, stated, tmp_path, capsys):
    assert_refused(main, arguments, stated, capsys, tmp_path / "out")
