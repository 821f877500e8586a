"""The equal-budget comparison as table and figures: nothing but averages, and both budgets."""

import re

import fake_compare
import numpy as np
import pytest

from framelens.reports import __main__ as command
from framelens.reports import budget, compare
from framelens.reports.plots import compare_frames, compare_training
from framelens.reports.runs import open_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return open_run(fake_compare.write(tmp_path_factory.mktemp("runs") / "compare" / "tiles"))


def test_the_table_counts_steps_and_time(run):
    table = budget.table(run).set_index("arm")
    assert table.cost.tolist() == pytest.approx([1, 0.5, 0.775])
    # The cheapest arm ends after the time of 50 dense steps, where dense stands at its middle checkpoint.
    assert table.loss_time["dense 12"] == pytest.approx(0.4)
    assert table.loss_time["prefix 8+4"] == table.loss["prefix 8+4"] == pytest.approx(0.16)
    assert table.loss["dense 12"] == pytest.approx(0.2)
    between = np.exp(np.interp(50 / 0.775, [50, 100], np.log([0.44, 0.22])))
    assert table.loss_time["token_concat 8+4"] == pytest.approx(between)


def test_differences_to_dense_are_taken_clip_by_clip(run):
    table, result = budget.table(run).set_index("arm"), run.read("compare")
    mean = result.psnr.sel(sampling="teacher_forced").mean(("frame", "seed", "clip"))
    assert table.gain["prefix 8+4"] == pytest.approx(float(mean[1] - mean[0]))
    assert table.gain["dense 12"] == table.gain_low["dense 12"] == table.gain_high["dense 12"] == 0
    assert table.gain_low["prefix 8+4"] < table.gain["prefix 8+4"] < table.gain_high["prefix 8+4"]


def test_the_command_prints_one_row_per_network(run, capsys):
    assert compare.main([str(run.folder)]) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert len(lines) == 2 + len(fake_compare.ARMS) and len({line.count("|") for line in lines}) == 1
    assert compare.main([str(run.folder / "nothing")]) == 2
    assert str(run.folder / "nothing") in capsys.readouterr().err


@pytest.mark.slow
def test_figures_and_page_are_drawn_from_the_folder_alone(run, tmp_path, capsys):
    assert command.main(["--run", str(run.folder), "--out", str(tmp_path)]) == 0
    assert {path.stem for path in tmp_path.rglob("*.png")} == {"compare_training", "compare_frames"}
    page = (run.folder / "page.html").read_text()
    assert page.count("data:image/png") == 2 and re.search(r"\b6 clips\b", page)


def test_a_world_without_a_state_has_three_panels(tmp_path):
    run = open_run(fake_compare.write(tmp_path / "compare" / "films", seeds=1, clips=2, state_error=False))
    figure, table = compare_frames.draw(run)
    assert len(figure.axes) == 3 and "state" not in budget.table(run)
    assert "PSNR" in compare_frames.words(table)


def test_words_say_both_budgets(run):
    _, table = compare_training.draw(run)
    assert re.search(r"dense 12\D+0\.2000\D+0\.4000\D", compare_training.words(table))
