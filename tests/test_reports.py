"""Reports: what is drawn is what the run folder holds, without torch, and the answer can be no."""

import io
import json
import os
import re
import subprocess
import sys
import zlib
from pathlib import Path

import fake_run
import matplotlib
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from fontTools.ttLib import TTFont
from PIL import Image

from framelens.analyses.decision.engine import Answer, Question
from framelens.analyses.decision.findings import Finding
from framelens.analyses.depth import depth_of
from framelens.analyses.intervals import mean_interval
from framelens.analyses.scales import scale_of
from framelens.reports.__main__ import kind_of, main
from framelens.reports.datasets import opened_once
from framelens.reports.drawn import draw_all
from framelens.reports.findings.findings import findings
from framelens.reports.page.page import page
from framelens.reports.plots import load, names
from framelens.reports.runs import open_run

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
FIGURES = [name for name in names() if kind_of(name) == "probe"]
SMALL = {"layers": 4, "steps": 4, "heads": 2, "clips": 5}
WITHOUT_TORCH = """
import sys

class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "hooks", "models", "probes"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, NoTorch())
from framelens.reports.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return fake_run.write(tmp_path_factory.mktemp("runs") / "fake" / "first", **SMALL)


@pytest.fixture(scope="module")
def run(folder):
    return open_run(folder)


@pytest.fixture(scope="module")
def drawn(folder):
    """Everything drawn once, by the command, in a process that has no torch; the folder of its figures."""
    out, matplotlibrc = folder.parent.parent / "figures", folder.parent.parent / "matplotlibrc"
    matplotlibrc.write_text("text.usetex: True\npdf.fonttype: 3\nfont.family: serif\nsavefig.bbox: tight\n")
    # A user's settings that ask for LaTeX, on a machine that has none.
    environment = os.environ | {"MATPLOTLIBRC": str(matplotlibrc), "PATH": "/nonexistent"}
    command = [sys.executable, "-W", "error", "-c", WITHOUT_TORCH, "--run", str(folder), "--out", str(out)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, env=environment)
    return out / "fake" / "first"


def test_two_processes_draw_what_one_draws(run, tmp_path):
    chosen = ["depth", "lag"]
    (one, other) = (dict(draw_all(run, chosen, tmp_path / str(n), workers=n)) for n in (1, 2))
    assert list(one) == list(other) == chosen
    for name in chosen:
        assert one[name].words == other[name].words and len(one[name].files) == len(other[name].files) == 3
        for file, same in zip(one[name].files, other[name].files, strict=True):
            assert file.name == same.name and (
                file.suffix == ".pdf" or file.read_bytes() == same.read_bytes()
            )


def test_every_figure_is_drawn_without_torch(drawn):
    expected = {f"{name}.{suffix}" for name in FIGURES for suffix in ("pdf", "png", "csv")}
    assert {path.name for path in drawn.iterdir()} == expected


def test_a_picture_holds_the_command_of_its_run(drawn):
    for name in FIGURES:
        with Image.open(drawn / f"{name}.png") as opened:
            assert opened.text == {"Source": "framelens probe --model fake <b>"}, name


def test_the_fonts_of_every_pdf_are_whole_truetype(drawn):
    """Type 42, which journals take; Type 3 is refused by many."""
    for name in FIGURES:
        pdf = (drawn / f"{name}.pdf").read_bytes()
        assert b"/Type3" not in pdf and b"/CIDFontType2" in pdf, name
        fonts = re.findall(rb"/FontFile2 (\d+) 0 R", pdf)
        for number in fonts:
            (stream,) = re.findall(
                rb"\n" + number + rb" 0 obj\n.*?stream\r?\n(.*?)\r?\nendstream", pdf, re.DOTALL
            )
            assert "DejaVu" in TTFont(io.BytesIO(zlib.decompress(stream)))["name"].getDebugName(4), name
        assert fonts, name


def test_a_figure_is_a_picture_in_a_notebook_and_leaves_the_users_settings(run):
    before = dict(matplotlib.rcParams)
    picture = load("norms").draw(run)[0]._repr_png_()
    with Image.open(io.BytesIO(picture)) as opened:
        assert opened.format == "PNG" and opened.width > 500
    assert dict(matplotlib.rcParams) == before


def test_every_figure_has_numbers_beside_it_and_sentences_about_them(drawn):
    for name in FIGURES:
        table = pd.read_csv(drawn / f"{name}.csv")
        assert len(table) > 3
        assert re.search(r"\d", load(name).words(table)), name


def test_the_page_needs_nothing_from_outside(drawn, folder):
    page = (folder / "page.html").read_text()
    assert page.count('src="data:image/png;base64,') == len(FIGURES) == page.count("src=")
    for outside in ("http://", "https://", "<script src", "<link", "@import"):
        assert outside not in page
    assert not re.search(r"url\((?!data:image/)", page), "pictures of the player are inside the page"


def test_the_page_escapes_what_the_manifest_says(drawn, folder):
    page = (folder / "page.html").read_text()
    assert "--model fake &lt;b&gt;" in page
    assert "0" * 64 in page


def test_depth_averages_the_off_diagonal_pairs(run, folder):
    _, table = load("depth").draw(run)
    with xr.open_dataset(folder / "step_similarity.nc", engine="netcdf4") as stored:
        values = stored.cosine.sel(network="random", mode="teacher_forced").values
    pairs = ~np.eye(values.shape[-1], dtype=bool)
    rows = table[(table["panel"] == table["panel"].iloc[0]) & (table["curve"] == "random")]
    by_clip = values[..., pairs].mean((1, 3), dtype=np.float64)
    assert np.allclose(rows["mean"], mean_interval(by_clip, scale_of("cosine")).mean, atol=1e-6)
    assert (rows["low"] <= rows["mean"]).all() and (rows["mean"] <= rows["high"]).all()


def test_the_table_holds_exactly_the_drawn_curves(run):
    figure, table = load("depth").draw(run)
    curves = [line.get_ydata() for axes in figure.axes for line in axes.lines if len(line.get_ydata()) > 2]
    assert np.allclose(np.concatenate(curves), table["mean"])


def test_cross_attention_averages_the_stored_mass(run, folder):
    _, table = load("cross_attention").draw(run)
    with xr.open_dataset(folder / "frame_attention.nc", engine="netcdf4") as stored:
        mass = stored.cross_mass.sel(network="trained", mode="teacher_forced").mean(
            ("clip", "frame", "head", "step")
        )
        uniform = 1 - float(stored.uniform.sel(lag=0).mean())
    of_mass = table[table["panel"] == "cross_mass"]
    assert np.allclose(of_mass[of_mass["curve"] == "trained"]["mean"], mass, atol=1e-6)
    assert np.allclose(of_mass[of_mass["curve"] == "uniform"]["mean"], uniform)


def test_heads_shows_trained_minus_random(run, folder):
    _, table = load("heads").draw(run)
    with xr.open_dataset(folder / "frame_attention.nc", engine="netcdf4") as stored:
        mass = stored.cross_mass.sel(mode="teacher_forced").mean(("clip", "frame", "step"))
        change = (mass.sel(network="trained") - mass.sel(network="random")).transpose("head", "layer")
    rows = table[table["panel"] != "trained"].pivot(index="head", columns="layer", values="mean")
    assert np.allclose(rows, change, atol=1e-6)


def test_frames_without_a_past_are_left_out_of_attention(tmp_path):
    run = open_run(fake_run.write(tmp_path / "fake" / "first", **SMALL | {"frames": (0, 3)}))
    _, table = load("cross_attention").draw(run)
    assert np.allclose(table[table["curve"] == "uniform"]["mean"], 0.75)


def test_given_frames_are_left_out_of_the_error(run):
    _, table = load("samples").draw(run)
    assert table["frame"].min() == 3
    assert np.isfinite(table["mean"]).all()


def test_findings_are_confirmed_where_the_data_say_so(run):
    assert [finding.verdict for finding in findings(run)] == ["confirmed", "confirmed"]


def test_findings_can_say_no(tmp_path):
    run = open_run(fake_run.write(tmp_path / "fake" / "first", **SMALL, claims_hold=False))
    assert [finding.verdict for finding in findings(run)] == ["not confirmed", "not confirmed"]


def test_findings_are_undecided_without_data(tmp_path):
    folder = fake_run.write(tmp_path / "fake" / "first", **SMALL)
    (folder / "noise_invariance.nc").unlink()
    (folder / "frame_attention.nc").unlink()
    first, second = findings(open_run(folder))
    assert first.verdict == second.verdict == "undecided"
    assert "noise_invariance" in first.tests[-1].measured


@pytest.mark.parametrize(
    ("outcomes", "verdict"),
    [
        ((True, True, True), "confirmed"),
        ((True, True, False), "partly confirmed"),
        ((True, False, False), "not confirmed"),
        ((False, False, None), "not confirmed"),
        ((True, False, None), "undecided"),
        ((None, None, None), "undecided"),
    ],
)
def test_the_verdict_counts_passed_tests(outcomes, verdict):
    asked = Question("a", "?", measure=lambda evidence: None, threshold=0.5, side="above", kind="claim")
    tests = [Answer(asked, 0.5, 0.6, 0.5, 0.7, outcome, "") for outcome in outcomes]
    assert Finding("claim", tests, [], []).verdict == verdict


def test_too_few_clips_and_two_groups_are_said_and_drawn(tmp_path):
    run = open_run(
        fake_run.write(tmp_path / "fake" / "first", **SMALL | {"clips": 3, "channels": 1}, split=2)
    )
    for name in ("cross_attention", "samples"):
        figure, table = load(name).draw(run)
        heading = " ".join(part.get_suptitle() for part in [figure, *figure.subfigs])
        assert re.search(r"\b3 ", heading)
        assert table["low"].isna().all()
    depth = depth_of(run.read("step_similarity", "cosine"))
    assert depth.name(4) == "decoder layer 0" and depth.label(3) == "embed"
    assert {finding.verdict for finding in findings(run)} == {"undecided"}


def test_an_unfinished_or_missing_run_is_one_line_and_exit_2(tmp_path, capsys):
    folder = fake_run.write(tmp_path / "fake" / "first", **SMALL, complete=False)
    for run, said in ((folder, "first"), (tmp_path / "nowhere", "nowhere")):
        assert main(["--run", str(run), "--out", str(tmp_path)]) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1


def test_a_figure_without_its_dataset_says_which(tmp_path, capsys):
    folder = fake_run.write(tmp_path / "fake" / "first", **SMALL)
    (folder / "block_norms.nc").unlink()
    assert main(["--run", str(folder), "--out", str(tmp_path), "--figure", "norms"]) == 2
    assert re.search("norms .*block_norms", capsys.readouterr().err)


def test_an_unknown_figure_lists_those_that_exist(tmp_path, capsys):
    assert main(["--figure", "nope", "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert all(name in error for name in names())


def test_all_draws_finished_runs_and_names_the_others(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fake_run.write(tmp_path / "runs" / "fake" / "first", **SMALL)
    fake_run.write(tmp_path / "runs" / "fake" / "second", **SMALL, complete=False)
    assert main(["--out", "figures", "--figure", "norms"]) == 0
    said = capsys.readouterr()
    assert "second" in said.err
    assert "figures/fake/first/norms.csv" in said.out


def test_a_command_opens_each_dataset_once(folder, tmp_path, monkeypatch):
    opened, open_dataset = [], xr.open_dataset
    monkeypatch.setattr(
        xr, "open_dataset", lambda path, **how: opened.append(path) or open_dataset(path, **how)
    )
    assert main(["--run", str(folder), "--out", str(tmp_path), "--figure", "lag", "heads"]) == 0
    assert opened == [folder / "frame_attention.nc"]
    opened.clear()
    page(open_run(folder), [], {})
    assert len(opened) == len(set(opened)) > 9


def test_what_one_reader_does_with_values_no_other_sees(run):
    with opened_once():
        first = run.read("block_norms")
        for variable in first.data_vars.values():
            variable.values[:] = 0
        assert any((variable != 0).any() for variable in run.read("block_norms").data_vars.values())


def test_a_variable_or_label_that_is_not_there_is_answered_with_those_that_are(run):
    with pytest.raises(ValueError, match="'cosin'.*'cosine'"):
        run.read("step_similarity", "cosin")
    with pytest.raises(ValueError, match="'other'"):
        run.read("step_similarity", network="other")


def test_a_token_grid_that_does_not_fit_is_refused(tmp_path):
    folder = fake_run.write(tmp_path / "fake" / "first", **SMALL)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["model"]["geometry"]["patch"] = 8
    manifest["model"]["geometry"]["height"] = 56
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=r"\b24 .*\b7 x 3"):
        load("pca").draw(open_run(folder))
