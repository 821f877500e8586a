"""The player of the page: every frame of every film, borders of given frames, errors, a bounded size."""

import io

import fake_run
import numpy as np
import pytest
from PIL import Image

from framelens.reports import listing
from framelens.reports.page import player as module
from framelens.reports.page.film import BORDER, GENERATED, GIVEN, Film
from framelens.reports.page.player import error_maps, films_of, player
from framelens.reports.plots.samples import read_samples
from framelens.reports.runs import open_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return open_run(fake_run.write(tmp_path_factory.mktemp("runs") / "fake" / "a", clips=3))


def test_a_film_is_a_picture_of_all_its_frames_side_by_side(run):
    films = films_of(*read_samples(run), 1, context=3)
    assert [film.title for film in films] == list(module.TITLES.values())
    for film in films:
        with Image.open(io.BytesIO(film.sprite())) as picture:
            pixels = np.asarray(picture.convert("RGB"))
        height, width = film.shape
        assert pixels.shape == (height, width * len(film.frames), 3)
        for number, was_given in enumerate(film.was_given):
            assert tuple(pixels[0, number * width]) == (GIVEN if was_given else GENERATED)
        factor = (height - 2 * BORDER) // film.frames.shape[1]
        shown = pixels[BORDER : height - BORDER : factor, width + BORDER : 2 * width - BORDER : factor]
        assert (shown == film.frames[1]).all(), "small frames are enlarged without a change"


def test_the_pixels_are_those_of_the_stored_clip(run):
    truth = films_of(*read_samples(run), 2, context=3)[0]
    stored = run.read("samples", "truth").truth.isel(clip=2).transpose("frame", "row", "col", "channel")
    assert np.abs(truth.frames / 127.5 - 1 - stored.values).max() < 1 / 100


def test_a_given_frame_is_one_of_the_context_or_one_without_a_score(run):
    truth, forced, free = films_of(*read_samples(run), 0, context=3)
    assert truth.was_given.tolist() == free.was_given.tolist() == [True] * 3 + [False] * 9
    psnr = run.read("samples", "psnr", mode="teacher_forced").psnr.isel(clip=0).values
    assert (forced.was_given == (~np.isfinite(psnr) | (np.arange(12) < 3))).all()


def test_an_error_map_is_light_without_error_and_dark_from_half_of_the_range_on():
    black, white = np.zeros((2, 4, 4, 3), np.uint8), np.full((2, 4, 4, 3), 255, np.uint8)
    same, opposite = (Film("x", frames, np.zeros(2, bool)) for frames in (black, white))
    light, dark = error_maps([same, same, opposite])
    assert light.frames.mean() > 220 and dark.frames.mean() < 50


def test_clips_beyond_the_limit_of_bytes_are_left_out_and_counted(run, monkeypatch):
    (whole,) = player(run)
    assert whole.count('class="clip"') == 3 and "left out" not in whole
    monkeypatch.setattr(module, "MOST_BYTES", 1)
    (small,) = player(run)
    assert small.count('class="clip"') == 1 and "2 more clips are left out" in small


def test_a_run_without_samples_has_no_player(tmp_path):
    folder = fake_run.write(tmp_path / "fake" / "a", clips=1)
    (folder / "samples.nc").unlink()
    assert player(open_run(folder)) == []


def test_the_index_links_to_the_pages_with_verdict_and_picture(tmp_path, capsys):
    folder = fake_run.write(tmp_path / "fake" / "<a>", clips=1, verdict="separable")
    (folder / "page.html").write_text("x")
    fake_run.write(tmp_path / "fake" / "b", complete=False)
    assert listing.main(["--out", str(tmp_path), "--html"]) == 0
    page = (tmp_path / "index.html").read_text()
    assert capsys.readouterr().out.strip() == str(tmp_path / "index.html")
    assert 'href="fake/%3Ca%3E/page.html"' in page and "separable" in page and "not finished" in page
    assert page.count('class="film"') == 1 and "<a>" not in page.replace("<a href", "")
