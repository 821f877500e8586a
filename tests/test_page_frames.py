"""What interventions do to the picture, on the page: the stored frames, and that of the chosen layer."""

import base64
import io
import re

import fake_run
import numpy as np
import pytest
import xarray as xr
from PIL import Image
from test_page import SMALL, add_driver, read_shown, write

from framelens.reports.page import kept_frames as module
from framelens.reports.page.film import BORDER
from framelens.reports.page.kept_frames import layer_frames, planned_films
from framelens.reports.page.page import page
from framelens.reports.page.player import player
from framelens.reports.plots import load
from framelens.reports.plots.samples import AS_COLOURS
from framelens.reports.runs import open_run

DRIVER = """<script>
const figures = (name) => Array.from(document.querySelectorAll("figure[data-frames=" + name + "]"));
const select = document.getElementById("choose-layer"), shown = {failures};
const look = () => figures("cut_frames").concat(figures("reuse_frames"), figures("truth")).map((figure) => (
  [figure.hidden, figure.lastElementChild.textContent, figure.firstElementChild.style.backgroundPosition,
   getComputedStyle(figure.firstElementChild).animationName]));
for (const layer of ["0", "1", "2"]) {
  select.value = layer; select.dispatchEvent(new Event("change")); shown[layer] = look();
  shown["read " + layer] = document.querySelector(".frames").hidden; }
shown.width = [document.documentElement.scrollWidth, innerWidth];
document.body.appendChild(document.createElement("pre")).id = "shown";
document.getElementById("shown").textContent = JSON.stringify(shown);
</script>"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write(tmp_path_factory.mktemp("runs"))


@pytest.fixture
def folder(tmp_path):
    return fake_run.write(tmp_path / "fake" / "first", **SMALL, verdict="separable")


def sprite_of(figure, count):
    """The frames of a picture of the page, [frame, row, column, 3], without borders and enlargement."""
    content = re.search(r"base64,([^)]*)\)", figure)[1]
    with Image.open(io.BytesIO(base64.b64decode(content))) as opened:
        whole = np.asarray(opened.convert("RGB"))
    frames = np.stack(np.split(whole, count, axis=1))[:, BORDER:-BORDER, BORDER:-BORDER]
    return frames[:, :: frames.shape[1] // 16, :: frames.shape[2] // 24]


def test_a_picture_has_the_stored_frame_of_every_layer(run):
    frames = layer_frames(run)
    stored = run.read("cut_frames").generated.transpose("clip", "layer", "row", "col", "channel").values
    for clip in range(2):
        (figure,) = re.findall(r'<figure data-frames="cut_frames".*?</figure>', frames.parts[1 + clip])
        assert np.abs(sprite_of(figure, 4) - stored[clip]).max() <= 1
    assert frames.layers["cut_frames"] == ["0", "1", "2", "3"] and frames.layers["reuse_frames"] == ["0", "2"]


@pytest.mark.slow
def test_choosing_a_layer_shows_its_frames(run, tmp_path):
    shown = read_shown(tmp_path, add_driver(page(run, [], {}), DRIVER))
    assert shown["failures"] == [] and shown["width"][0] <= shown["width"][1]
    for layer, place in (("0", 0), ("1", 100 / 3), ("2", 200 / 3)):
        cut, reuse, truth = shown[layer][0], shown[layer][2], shown[layer][4]
        assert cut[:2] == [False, f"cut from layer {layer} on"]
        assert float(cut[2].split("%")[0]) == pytest.approx(place, abs=0.01) and cut[3] == "none"
        assert reuse[0] == (layer == "1"), "an intervention that was not tried at a layer has no picture"
        assert truth[:2] == [False, "truth"]
        assert shown[f"read {layer}"] == (layer == "1"), "nothing is read from layer 1"


def test_the_player_shows_the_planned_cut_and_one_layer_too_early(run):
    films = planned_films(run, 0)
    assert [re.findall(r"\d+", film.title) for film in films] == [["2"], ["1"]]
    stored = run.read("cut_films").video.transpose("clip", "layer", "frame", "row", "col", "channel").values
    truth = run.read("samples", "truth").truth.isel(clip=0).transpose("frame", "row", "col", "channel").values
    for film, layer in zip(films, (2, 1), strict=True):
        assert film.was_given.tolist() == [True] * 3 + [False] * 9
        assert np.abs(film.frames[3:] - stored[0, layer]).max() <= 1
        assert np.abs(film.frames[:3] / 127.5 - 1 - truth[:3]).max() < 1 / 100
    assert planned_films(run, 1) == [], "films are of the first clip"
    (shown,) = player(run)
    assert shown.count("as planned") == 4, "film and error map, each with its title and its label"


def test_a_run_without_a_split_or_without_films_has_neither(folder):
    (folder / "plan.json").unlink()
    assert planned_films(open_run(folder), 0) == []


def test_a_run_of_an_older_version_has_no_such_pictures(folder):
    for path in [*folder.glob("*_frames.nc"), folder / "cut_films.nc", folder / "x0_lens.nc"]:
        path.unlink()
    older = open_run(folder)
    assert layer_frames(older).parts == [] and 'data-frames="' not in page(older, [], {})
    assert planned_films(older, 0) == [] and older.missing(load("intervention_frames").needs)


def test_clips_beyond_the_limit_of_bytes_are_left_out(run, monkeypatch):
    monkeypatch.setattr(module, "MOST_BYTES", 1)
    assert len(layer_frames(run).parts) == 3, "a title, the first clip, and what is read from the layer"


def test_what_is_read_from_a_layer_has_the_stored_frames(run):
    stored = run.read("x0_lens_frames").read.isel(clip=0).transpose("step", "layer", "row", "col", "channel")
    frames = layer_frames(run)
    figures = re.findall(r'<figure data-frames="x0_lens_frames-(\d)".*?</figure>', frames.parts[-1])
    assert figures == ["0", "1", "2"] and frames.layers["x0_lens_frames-0"] == ["embed", "0", "2", "3"]
    for figure, expected in zip(re.findall(r"<figure .*?</figure>", frames.parts[-1]), stored, strict=True):
        assert np.abs(sprite_of(figure, 4) - expected.values).max() <= 1


def test_matrices_of_similarity_name_the_first_and_the_last_step_of_both_axes(run):
    html = page(run, [], {})
    ends = "<span>0 (sigma 1)</span>", "<span>3 (sigma 0.25)</span>"
    assert f"{ends[0]}<span>other step</span>{ends[1]}" in html
    assert f"{ends[1]}<span>reference step</span>{ends[0]}" in html, "rows begin at the top"
    assert "grey" not in "".join(re.findall(r'<p class="scale">.*?</p>', html))


def test_the_figure_has_the_error_of_every_picture(run):
    figure, table = load("intervention_frames").draw(run)
    stored = run.read("cut_frames") / 127.5 - 1
    error = ((stored.generated - stored.truth) ** 2).mean(("channel", "row", "col"))
    drawn = table[table["intervention"] == "cut"].set_index(["clip", "layer"])["mse"]
    for clip in range(2):
        for layer in range(4):
            assert drawn[clip, layer] == pytest.approx(float(error[clip, layer]))
    assert "planned\n2" in [axes.get_title() for axes in figure.get_axes()]


def test_latents_are_shown_by_three_channels_in_the_range_of_the_truth(run):
    stored = (run.read("cut_frames").isel(clip=0) / 127.5 - 1) * 5
    four = stored.isel(channel=[0, 1, 2, 0]).assign_attrs(latent=1)
    pictures = load("intervention_frames").as_pictures(four)
    assert pictures["generated"].sizes["channel"] == 3
    ends = float(pictures["truth"].min()), float(pictures["truth"].max())
    assert ends == pytest.approx((-1, 1))


def test_of_latents_it_is_said_that_channels_are_shown_as_colours(folder):
    for name in ("cut_frames", "leave_one_out_frames", "reuse_frames", "x0_lens_frames", "cut_films"):
        with xr.open_dataset(folder / f"{name}.nc", engine="netcdf4") as opened:
            stored = opened.load()
        stored.assign_attrs(latent=1).to_netcdf(folder / f"{name}.nc", engine="netcdf4")
    run = open_run(folder)
    titles = [part for part in layer_frames(run).parts if "<h3>" in part]
    assert len(titles) == 2 and all(AS_COLOURS in title for title in titles)
    assert all(AS_COLOURS in film.title for film in planned_films(run, 0))
    for name in ("intervention_frames", "x0_lens"):
        figure, _ = load(name).draw(run)
        assert "latents" in figure.get_suptitle()
