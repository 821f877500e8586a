"""Runs on one page: curves over each other, differences with intervals, and what cannot be compared."""

import json
import re
from pathlib import Path

import fake_run
import numpy as np
import pytest
import xarray as xr
from scipy import stats

from framelens.analyses.decision.repeated_features import TOKEN_COSINE, TOKEN_COSINE_NULL
from framelens.analyses.differences import mean_difference
from framelens.analyses.scales import LOG
from framelens.reports import compare
from framelens.reports.comparison import curves
from framelens.reports.comparison.compared import Compared
from framelens.reports.comparison.measures import MEASURES
from framelens.reports.runs import open_run

CROSS_MASS = next(measure for measure in MEASURES if measure.name == "cross_mass")
CUT = next(measure for measure in MEASURES if measure.name == "cut_from")


def test_a_paired_difference_has_the_interval_of_the_paired_t_test():
    rng = np.random.default_rng(0)
    first = rng.normal(size=(9, 4)) * 10
    second = first + 1 + rng.normal(size=(9, 4))
    found = mean_difference(first, second, is_paired=True)
    test = stats.ttest_rel(second, first).confidence_interval(0.95)
    for ours, theirs in zip(found, (np.mean(second - first, 0), test.low, test.high), strict=True):
        assert ours == pytest.approx(theirs)
    apart = mean_difference(first, second, is_paired=False)
    assert (apart.high - apart.low > found.high - found.low).all()
    assert apart.mean == pytest.approx(found.mean)


def test_errors_are_compared_by_their_ratio_and_a_value_that_is_not_finite_is_left_out():
    first = np.array([1.0, 2, 4, 8, 16, np.inf])[:, None]
    found = mean_difference(first, 3 * first, LOG, is_paired=True)
    assert found.mean == pytest.approx(3) and found.low == pytest.approx(3)
    apart = mean_difference(first, 3 * first, LOG)
    assert apart.mean == pytest.approx(3) and apart.low < 1 < apart.high


def test_differences_of_few_clips_have_no_interval_and_unequal_pairs_are_refused():
    found = mean_difference(np.zeros((3, 2)), np.ones((3, 2)), is_paired=True)
    assert (found.mean == 1).all() and np.isnan(found.low).all()
    with pytest.raises(ValueError, match="3 and 2"):
        mean_difference(np.zeros((3, 2)), np.ones((2, 2)), is_paired=True)


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fake_run.write(tmp_path / "runs" / "fake" / "a", verdict="separable")
    fake_run.write(
        tmp_path / "runs" / "fake" / "b",
        verdict="not separable",
        claims_hold=False,
        controls_hold=True,
        seed=2,
    )
    return [open_run("fake/a"), open_run("fake/b")]


def with_settings(run, **settings):
    path = run.folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["settings"] |= settings
    path.write_text(json.dumps(manifest))
    return open_run(run.folder)


def test_the_same_videos_seed_and_frames_are_the_same_clips(runs):
    first, second = runs
    assert Compared.of(runs).share_clips and not Compared.of(runs).settings_that_differ
    other = Compared.of([first, with_settings(second, seed=1)])
    assert not other.share_clips and other.settings_that_differ == {"seed": [0, 1]}


def test_the_drawn_difference_is_that_of_the_values(runs):
    _, table = curves.draw(CUT, Compared.of(runs))
    first, second = (CUT.values(run).values for run in runs)
    rows = table[table["kind"] == "against fake/a"]
    assert rows["mean"].to_numpy() == pytest.approx(np.exp(np.log(second / first).mean(0)))
    assert set(table[table["kind"] == "value"]["run"]) == {"fake/a", "fake/b"}
    (sentence,) = curves.words(table, CUT)
    clear = ((rows["low"] > 1) | (rows["high"] < 1)).sum()
    assert f"{clear} of {len(rows)} layers" in sentence or (clear == 0 and "no layer" in sentence)


def test_models_of_other_depth_are_drawn_along_the_depth_without_differences(runs, tmp_path):
    fake_run.write(tmp_path / "runs" / "fake" / "c", layers=6)
    compared = Compared.of([runs[0], open_run("fake/c")])
    figure, table = curves.draw(CROSS_MASS, compared)
    assert len(figure.axes) == 1 and set(table["kind"]) == {"value"}
    assert all(0 <= x <= 1 for line in figure.axes[0].lines for x in line.get_xdata())


@pytest.mark.slow
def test_the_page_has_every_figure_both_verdicts_and_what_is_missing(runs, capsys):
    (runs[1].folder / "readout.nc").unlink()
    older, since = runs[1].folder / "noise_invariance.nc", [TOKEN_COSINE, TOKEN_COSINE_NULL]
    xr.load_dataset(older, engine="netcdf4").drop_vars(since).to_netcdf(older, engine="netcdf4")
    assert compare.main(["fake/a", "fake/b"]) == 0
    path = capsys.readouterr().out.strip()
    page = Path(path).read_text(encoding="utf-8")
    assert page.count("data:image/png") == len(MEASURES) - 2
    assert "not separable" in page and "finding 2" in page
    assert re.search(r"Clean frame read out: fake/b lacks readout", page)
    assert "fake/b lacks token_cosine_median of noise_invariance" in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fake/a"], "at least two runs"),
        (["fake/a", "runs/fake/a"], "given twice"),
        (["fake/a", "fake/x"], "found no run 'fake/x'"),
    ],
)
def test_what_cannot_be_compared_gets_one_line(runs, arguments, message, capsys):
    assert compare.main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_run_says_what_it_has_and_gives_tables(runs):
    run = runs[0]
    assert repr(run).startswith(f"<probe run {run.folder}: ") and "step_similarity" in repr(run)
    assert run.plan is not None and run.plan.verdict == "separable"
    assert "centred_cosine" in run.similarity and "cross_mass" in run.attention
    table = run.to_pandas("frame_attention", "cross_mass")
    assert len(table) == run.attention.cross_mass.size and {"clip", "layer", "head"} <= set(table)
    assert set(run.to_pandas("cut")) >= {"velocity_error", "sigma"}
    with pytest.raises(ValueError, match="no 'mass_of'"):
        run.to_pandas("frame_attention", "mass_of")
