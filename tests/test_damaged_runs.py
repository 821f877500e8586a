"""What stands in the files of a run cannot harm its page, and a damaged file is named in one line."""

import json
import shutil

import fake_run
import pytest
import xarray as xr
from test_page import browse

from framelens.reports.__main__ import main
from framelens.reports.page.markup import fill, join, table

pytestmark = pytest.mark.slow

SMALL = {"layers": 3, "steps": 3, "heads": 2, "clips": 2, "verdict": "separable"}
HOSTILE = "\"'><script>document.title='PWNED'</script><img src=x onerror=\"document.title='PWNED'\">"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return fake_run.write(tmp_path_factory.mktemp("runs") / "fake" / "first", **SMALL)


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "fake" / "first")


def leaves(values, path=()):
    """The path of every value of a JSON file that is not an object or a list."""
    items = values.items() if isinstance(values, dict) else enumerate(values)
    for key, value in items:
        if isinstance(value, (dict, list)):
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key), value


def put(values, path, value):
    *front, last = path
    for key in front:
        values = values[key]
    values[last] = value


def report(folder, capsys, *more):
    status = main(["--run", str(folder), "--out", str(folder.parent / "figures"), *more])
    return status, capsys.readouterr().err


def is_harmless(html):
    return "<script>document" not in html and "<img src=x" not in html and 'onerror="' not in html


KEPT = {"kind", "complete", "format"}
"""Fields that say what the file is; with another value it is another file."""


def test_no_text_of_a_run_becomes_markup(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("framelens.reports.plots.names", lambda: ["controls", "norms"])
    for name in ("manifest.json", "plan.json"):
        values = json.loads((folder / name).read_text())
        for path, value in leaves(values):
            if isinstance(value, str) and path[-1] not in KEPT:
                put(values, path, HOSTILE)
        if name == "manifest.json":
            values["settings"][HOSTILE] = HOSTILE
        (folder / name).write_text(json.dumps(values))
    for path in folder.glob("*.nc"):
        with xr.open_dataset(path, engine="netcdf4") as stored:
            stored = stored.load()
        stored.attrs |= {"title": HOSTILE, "model": HOSTILE}
        for variable in stored.variables.values():
            variable.attrs |= {"units": HOSTILE, "long_name": HOSTILE}
        stored.to_netcdf(path, engine="netcdf4")
    assert main(["--run", str(folder), "--out", str(tmp_path / "figures")]) == 0
    html = (folder / "page.html").read_text()
    assert html.count("PWNED") > 10 and is_harmless(html)
    dom, complaints = browse(tmp_path, html)
    assert "<title>PWNED" not in dom and "SCRIPT" not in dom and complaints == []
    assert dom.count("<script") == 4 and dom.count("<img ") == html.count("<img ")


@pytest.mark.parametrize("name", ["manifest.json", "plan.json"])
def test_no_number_of_a_run_becomes_markup(name, folder, capsys, monkeypatch):
    """Each number in turn is text: the page shows it as text, or one line names the file."""
    for dataset in folder.glob("*.nc"):
        if dataset.stem not in ("cut", "leave_one_out"):
            dataset.unlink()
    monkeypatch.setattr("framelens.reports.plots.names", list)
    original = json.loads((folder / name).read_text())
    seen = {}
    for path, value in leaves(original):
        kind = tuple(key for key in path if isinstance(key, str))
        if isinstance(value, str) or value is None or kind in seen:
            continue
        seen[kind] = value
        values = json.loads(json.dumps(original))
        put(values, path, HOSTILE)
        (folder / name).write_text(json.dumps(values))
        status, error = report(folder, capsys)
        if status:
            assert error.count("\n") == 1 and (name in error or "is incomplete" in error), (path, error)
        else:
            assert is_harmless((folder / "page.html").read_text()), path
    assert len(seen) > 15


def test_a_plain_string_cannot_become_part_of_a_page():
    with pytest.raises(TypeError):
        join([fill("<p>{}</p>", "<b>"), "<script>"])
    cells = table(["<h>"], [["<td>", fill("<b>{}</b>", "&"), 3]], "numbers")
    assert "&lt;h&gt;" in cells and "<td>&lt;td&gt;</td><td><b>&amp;</b></td><td>3</td>" in cells


def cut_short(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def overwrite(path):
    path.write_bytes(bytes(255 - byte for byte in path.read_bytes()))


def flip_the_middle(path):
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 400] = bytes(255 - byte for byte in content[middle : middle + 400])
    path.write_bytes(bytes(content))


def drop_a_variable(path):
    with xr.open_dataset(path, engine="netcdf4") as stored:
        stored = stored.load()
    stored.drop_vars("resid_post").to_netcdf(path, engine="netcdf4")


@pytest.mark.parametrize(
    "damage", [cut_short, overwrite, drop_a_variable, lambda path: path.write_bytes(b"")]
)
def test_a_damaged_dataset_is_named_with_what_to_do(damage, folder, capsys):
    damage(folder / "block_norms.nc")
    status, error = report(folder, capsys, "--figure", "norms")
    assert status == 2 and error.count("\n") == 1
    assert "block_norms.nc" in error and "run again: framelens probe" in error


def test_flipped_bytes_are_named_or_drawn(folder, capsys):
    flip_the_middle(folder / "block_norms.nc")
    status, error = report(folder, capsys, "--figure", "norms")
    assert status == 0 or (status == 2 and "block_norms.nc" in error and error.count("\n") == 1)


@pytest.mark.parametrize("name", ["manifest.json", "plan.json"])
@pytest.mark.parametrize(
    "content", ["", "{", "[]", "[" * 100_000, "{}", '{"complete": true}', "\x00", "null"]
)
def test_a_damaged_json_file_is_named_with_what_to_do(name, content, folder, capsys, monkeypatch):
    monkeypatch.setattr("framelens.reports.plots.names", list)
    (folder / name).write_text(content)
    status, error = report(folder, capsys)
    assert status == 2 and error.count("\n") == 1
    assert name in error or "is incomplete" in error
    assert "again" in error


def test_a_damaged_run_does_not_stop_the_others(whole, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b", "c", "d"):
        shutil.copytree(whole, tmp_path / "runs" / "fake" / name)
    (tmp_path / "runs/fake/a/manifest.json").write_text("{")
    (tmp_path / "runs/fake/b/manifest.json").write_text('{"complete": true, "model": []}')
    cut_short(tmp_path / "runs/fake/c/block_norms.nc")
    assert main(["--out", "figures", "--figure", "norms"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 3
    assert all(
        f"runs/fake/{name}" in error for name in ("a/manifest.json", "b/manifest.json", "c/block_norms.nc")
    )
    assert (tmp_path / "figures/fake/d/norms.png").exists()


def test_features_that_are_not_whole_frames_leave_their_figure_out(folder, capsys, monkeypatch):
    monkeypatch.setattr("framelens.reports.plots.names", lambda: ["norms", "pca"])
    with xr.open_dataset(folder / "feature_pca.nc", engine="netcdf4") as stored:
        stored = stored.load()
    stored.isel(token=slice(0, 17)).to_netcdf(folder / "feature_pca.nc", engine="netcdf4")
    assert report(folder, capsys)[0] == 0
    page = (folder / "page.html").read_text()
    assert page.count("data:image/png") == 1 and "feature_pca has 17 tokens" in page
    status, error = report(folder, capsys, "--figure", "pca")
    assert status == 2 and "17 tokens" in error and error.count("\n") == 1
