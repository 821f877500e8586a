"""framelens figures --paper: the paper's figures and tables, its values beside ours, nothing invented."""

import json
import shutil
from pathlib import Path

import fake_compare
import fake_run
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from framelens.reports.__main__ import main
from framelens.reports.paper import similarity
from framelens.reports.paper.published import FILE, TABLES, read_table
from framelens.reports.paper.tables import NOT_MEASURED
from framelens.reports.runs import open_run

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def probed(tmp_path_factory):
    return fake_run.write(tmp_path_factory.mktemp("runs") / "fake/a", layers=4, steps=6)


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    folder = fake_compare.write(tmp_path_factory.mktemp("runs") / "compare/tiles")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["settings"]["videos"] = "tiles"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def bench(folder, preset):
    """A benchmark with invented times and the shipped benchmark's manifest."""
    folder.mkdir(parents=True)
    manifest = json.loads((ROOT / "reports/gallery/bench-tiny-manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"preset": preset}))
    arm = {"arm": ["dense", "token_concat"]}
    times = xr.Dataset({"sample_seconds": (("arm", "round"), [[0.9, 1.0, 1.3], [0.2, 0.3, 0.4]])}, arm)
    times["encode_seconds"] = 0 * times.sample_seconds + 0.1
    times.to_netcdf(folder / "bench_split.nc", engine="netcdf4")
    arms = xr.Dataset({"first_frame_seconds": (("arm", "round"), np.ones((2, 3)))}, arm)
    arms.assign(parameters=("arm", [1.3e9, 1.6e9])).to_netcdf(folder / "bench_arms.nc", engine="netcdf4")
    return folder


@pytest.fixture(scope="module")
def written(probed, compared, tmp_path_factory):
    folder = bench(tmp_path_factory.mktemp("runs") / "bench/minecraft", "minecraft")
    options = ["--paper", "--compare", str(compared), "--bench", str(folder)]
    assert main(["--run", str(probed), *options]) == 0
    return probed / "paper"


def test_everything_is_numbered_as_in_the_paper(written):
    drawn = {path.stem for path in written.glob("*.pdf")}
    assert drawn == {"similarity", "pca", "figure3", "figure5", "figure7"}
    assert {path.name for path in written.glob("table*")} == {
        f"table{number}.{kind}" for number in (1, 2, 3) for kind in ("csv", "tex")
    }
    text = (written / "contents.md").read_text()
    assert all(f"| {name} |" in text for name in ("Figure 3", "Figure 5", "Figure 7", "Table 1", "Table 3"))


def test_a_table_has_the_papers_value_and_ours_and_invents_none(written, compared):
    table = pd.read_csv(written / "table1.csv").set_index(["row", "measure"])
    assert table.loc[("SCD-M", "s / frame"), "paper"] == 0.52
    assert float(table.loc[("SCD-M", "s / frame"), "ours"]) == pytest.approx(0.4)
    assert float(table.loc[("Causal DiT-M", "s / frame"), "ours_low"]) == pytest.approx(1.0)
    stored = xr.load_dataset(compared / "compare.nc", engine="netcdf4")
    ours = stored.psnr.sel(arm="token_concat 8+4", sampling="teacher_forced").mean()
    assert float(table.loc[("SCD-M", "PSNR (dB)"), "ours"]) == pytest.approx(float(ours))
    assert np.isnan(table.loc[("SCD-MD", "LPIPS"), "paper"])
    assert table.loc[("SCD-M", "FVD"), "ours"] == NOT_MEASURED
    assert (pd.read_csv(written / "table3.csv")["ours"] == NOT_MEASURED).all()


def test_a_latex_table_has_two_cells_for_each_measure(written):
    lines = (written / "table1.tex").read_text().splitlines()
    body = lines[lines.index(r"\midrule") + 1 : lines.index(r"\bottomrule")]
    assert [line.split(" & ")[0] for line in body] == list(dict.fromkeys(read_table("1")["row"]))
    assert all(line.count("&") == 2 * len(TABLES["1"].measures) and line.endswith(r"\\") for line in body)
    assert not [line for line in body if "_" in line.replace(r"\_", "")]


def test_every_published_value_has_its_table_and_row():
    values = pd.read_csv(FILE, dtype={"table": str})
    assert (values["source"] == "Table " + values["table"] + " row " + values["row"]).all()
    for number, about in TABLES.items():
        rows = read_table(number)
        assert set(about.rows.values()) <= set(rows["row"])
        assert all(list(own["measure"]) == list(about.measures) for _, own in rows.groupby("row"))


@pytest.mark.parametrize("steps, shown", [(60, 50), (50, 50), (6, 6)])
def test_the_matrix_has_as_many_steps_as_the_paper_or_as_there_are(tmp_path, steps, shown):
    folder = fake_run.write(tmp_path / "fake/a", clips=2, layers=2, heads=1, frames=(4,), steps=steps)
    figure, table = similarity.draw(open_run(folder))
    assert len(table) == shown**2 and table["step"].max() == steps - 1
    assert ("the paper has 50 steps, this run 6" in table.attrs["extent"]) == (steps < 50)
    stored = open_run(folder).read("step_similarity", "cosine", network="trained")
    middle = stored.cosine.isel(layer=2).mean(("clip", "frame"))
    row = table[(table["step"] == 0) & (table["step_b"] == steps - 1)]
    assert row["cosine"].item() == pytest.approx(float(middle.sel(step=0, step_b=steps - 1)), abs=1e-5)


def test_what_a_run_did_not_measure_is_named_and_not_drawn(probed, tmp_path):
    folder = tmp_path / "fake/b"
    shutil.copytree(probed, folder, ignore=shutil.ignore_patterns("paper", "leave_one_out.nc"))
    assert main(["--run", str(folder), "--paper", "--out", str(tmp_path / "out")]) == 0
    text = (tmp_path / "out/fake/b/paper/contents.md").read_text()
    assert "| Figure 7 |  | " in text and "not measured: leave_one_out" in text
    assert "not measured: name a comparison of trainings with --compare" in text
    assert not list((tmp_path / "out/fake/b/paper").glob("figure[57].*"))


@pytest.mark.parametrize(
    "options, expected",
    [
        (["--compare", "RUN"], "are for --paper"),
        (["--paper", "--figure", "depth"], "give one of them"),
        (["--paper", "--bench", "COMPARE"], "--bench takes 'bench'"),
        (["--paper", "--bench", "BENCH"], "stands for no table of the paper"),
    ],
)
def test_options_that_do_not_fit_get_one_line(probed, compared, tmp_path, capsys, options, expected):
    runs = {"RUN": probed, "COMPARE": compared}
    runs["BENCH"] = bench(tmp_path / "bench/a", "a-model") if "BENCH" in options else probed
    given = [str(runs.get(option, option)) for option in options]
    assert main(["--run", str(probed), *given, "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and expected in said
    assert not (tmp_path / "out").exists()
