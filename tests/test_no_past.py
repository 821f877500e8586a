"""A run whose frames see no earlier one, as those of a separated model: what needs a past is left out."""

import fake_run
import pytest
import xarray as xr

from framelens.reports.__main__ import main
from framelens.reports.findings.findings import findings
from framelens.reports.plots import load
from framelens.reports.runs import open_run

pytestmark = pytest.mark.slow

KEPT = {"frame_attention", "step_similarity", "noise_invariance", "readout", "samples"}
"""The datasets that a page and the two findings read; figures of the others say nothing here."""


@pytest.fixture
def folder(tmp_path):
    folder = fake_run.write(tmp_path / "fake" / "first", layers=4, steps=4, heads=2, clips=5)
    for other in folder.glob("*.nc"):
        if other.stem not in KEPT:
            other.unlink()
    path = folder / "frame_attention.nc"
    own = xr.load_dataset(path, engine="netcdf4").sel(lag=[0])
    own["cross_mass"] *= 0
    own.to_netcdf(path, engine="netcdf4")
    return folder


def test_the_page_says_what_was_not_drawn(folder, tmp_path, capsys):
    assert main(["--run", str(folder), "--out", str(tmp_path / "figures")]) == 0
    page = (folder / "page.html").read_text()
    assert load("cross_attention").title in page
    assert not list((tmp_path / "figures").glob("**/cross_attention.png"))


def test_the_finding_on_attention_stays_open(folder):
    sparse = findings(open_run(folder))[1]
    assert {test.passed for test in sparse.tests} == {None}


def test_a_figure_that_was_asked_for_is_refused_in_one_line(folder, capsys):
    assert main(["--run", str(folder), "--figure", "lag"]) == 2
    error = capsys.readouterr().err
    assert "lag" in error and error.count("\n") == 1
