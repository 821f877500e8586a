"""What a notebook shows of a page: HTML in a frame of its own, and a plain picture."""

import re
from html import unescape

import fake_run
import numpy as np
import pytest

from framelens.records.damage import NotShown
from framelens.reports.page.notebook import draw_attention, show_attention, show_films, show_player
from framelens.reports.runs import open_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return open_run(fake_run.write(tmp_path_factory.mktemp("runs") / "fake/a", layers=4, steps=4))


def page_in(shown):
    """The document in the frame; the frame's own attributes hold nothing else of it."""
    found = re.fullmatch(r'<iframe srcdoc="([^"]*)" [^<>]*></iframe>', shown._repr_html_())
    return unescape(found[1])


def test_the_player_moves_and_has_a_picture(run):
    shown = show_player(run)
    assert 'class="film"' in page_in(shown) and "@keyframes play" in page_in(shown)
    assert shown._repr_png_().startswith(b"\x89PNG") and repr(shown).startswith("<Shown ")


def test_the_attention_map_brings_its_script_and_its_numbers(run):
    html = page_in(show_attention(run))
    assert html.count("<script") == html.count("</script>") >= 2 and "attention-numbers" in html


def test_the_plain_picture_of_attention_has_the_stored_values(run):
    rows = run.read("attention_rows").isel(clip=0, step=0)
    image = draw_attention(run).axes[0].images[0].get_array()
    first = rows.isel(layer=0, query=rows.sizes["query"] // 2, frame=0)
    ratio = (first.mass * first["keys"]).mean("head").values
    np.testing.assert_allclose(image.ravel(), np.clip(ratio, 1 / 8, 8), rtol=1e-6)


def test_films_of_ones_own_are_shown_side_by_side():
    videos = {"<true>": np.zeros((3, 1, 4, 6)), "edited": np.ones((2, 3, 4, 6))}
    shown = show_films(videos, given=1)
    html = page_in(shown)
    assert html.count('class="film"') == 2 and "--frames:3" in html and "--frames:2" in html
    assert "&lt;true&gt;" in html and "<true>" not in html
    assert sum(bool(axes.images) for axes in shown.picture.axes) == 5


def test_another_shape_of_a_film_is_refused():
    with pytest.raises(ValueError, match=r"frame, channel, row, col, got \{'a': \(1, 3, 1, 4, 6\)\}"):
        show_films({"a": np.zeros((1, 3, 1, 4, 6))})


def test_what_was_not_measured_is_named(run, tmp_path):
    folder = fake_run.write(tmp_path / "fake/b", layers=4, steps=4)
    for name, show in (("samples", show_player), ("attention_rows", show_attention)):
        (folder / f"{name}.nc").unlink()
        with pytest.raises(NotShown, match=name):
            show(open_run(folder))
