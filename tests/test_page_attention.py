"""Where a patch looks, on the page: the numbers are those stored, by pointer and by key."""

import re
from html import escape

import fake_run
import numpy as np
import pytest
from test_page import SMALL, add_driver, read_shown

from framelens.reports.page import attention as module
from framelens.reports.page.attention import (
    BASE64,
    LEVELS,
    LOWEST,
    NONE,
    attention_section,
    choose_rows,
    to_signs,
)
from framelens.reports.page.page import page
from framelens.reports.runs import open_run

pytestmark = pytest.mark.slow

DRIVER = """<script>
const text = (id) => document.getElementById("attention-" + id).textContent;
const canvas = document.getElementById("attention-query"), maps = document.getElementById("attention-maps");
const shown = {failures, hidden: document.getElementById("attention").hidden};
const key = (place, name) => place.dispatchEvent(new KeyboardEvent("keydown", {key: name, cancelable: true}));
const pick = (what, at) => { const select = document.getElementById("attention-" + what);
  select.value = at; select.dispatchEvent(new Event("change")); };
const point = (canvas, kind, column, columns, row, rows) => { const box = canvas.getBoundingClientRect();
  canvas.dispatchEvent(new PointerEvent(kind, {clientX: box.left + (column + 0.5) * box.width / columns,
    clientY: box.top + (row + 0.5) * box.height / rows})); };
const pixel = (canvas, x, y) => Array.from(canvas.getContext("2d").getImageData(x, y, 1, 1).data);
shown.first = text("patch");
pick("clip", "1"); pick("step", "1"); pick("layer", "2"); pick("head", "2");
point(canvas, "pointerdown", 4, 6, 1, 4); shown.patch = text("patch");
point(maps.querySelectorAll("canvas")[3], "pointermove", 4, 6, 1, 4); shown.key = text("key");
shown.caption = maps.querySelectorAll("figcaption")[3].textContent;
shown.centre = pixel(maps.querySelectorAll("canvas")[3], 4 * 32 + 16, 32 + 16);
key(maps, "ArrowRight"); key(maps, "ArrowRight"); key(maps, "ArrowDown"); shown.next = text("key");
key(canvas, "ArrowLeft"); key(canvas, "ArrowDown"); shown.moved = text("patch");
for (let at = 0; at < 9; at++) { key(canvas, "ArrowUp"); key(canvas, "ArrowLeft"); }
shown.corner = text("patch");
pick("head", "0"); shown.mean = text("patch");
pick("layer", "3"); shown.coarse = text("patch");
shown.absent = maps.querySelector("figcaption").textContent;
point(maps.querySelector("canvas"), "pointermove", 0, 6, 0, 4); shown.unseen = text("key");
shown.focusable = [canvas.tabIndex, maps.tabIndex];
shown.width = [document.documentElement.scrollWidth, innerWidth];
const pre = parent.document.body.appendChild(parent.document.createElement("pre"));
pre.id = "shown"; pre.textContent = JSON.stringify(shown);
</script>"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return open_run(fake_run.write(tmp_path_factory.mktemp("runs") / "fake" / "a", **SMALL))


@pytest.fixture(scope="module")
def rows(run):
    return run.read("attention_rows")


@pytest.fixture(scope="module", params=[1400, 420])
def shown(run, request, tmp_path_factory):
    """What the page in a window of that width showed while a script pointed, pressed keys and chose."""
    html = add_driver(page(run, [], {}), DRIVER)
    framed = f'<body><iframe width="{request.param}" height="900" srcdoc="{escape(html)}"></iframe></body>'
    return read_shown(tmp_path_factory.mktemp("browser"), framed)


def percents(text):
    return [float(number) for number in re.findall(r"([\d.]+) %", text)]


def at(rows, row, column):
    """What is stored at the clip, step, layer and head that the script chooses."""
    return rows.isel(clip=1, step=1, layer=2, head=1, query=row * 6 + column)


def test_the_section_is_shown_by_its_script_alone_and_without_errors(shown, run):
    assert shown["failures"] == [] and shown["hidden"] is False
    assert '<section id="attention" hidden>' in page(run, [], {})


def test_it_fits_the_window(shown):
    assert shown["width"][0] <= shown["width"][1]


def test_a_patch_that_is_pointed_at_has_the_stored_shares(shown, rows):
    stored = at(rows, 1, 4)
    wanted = [100 * float(stored.own_mass), 100 * float(stored.mass.sum())]
    assert re.search(r"^Layer 2, head 1, step 3 .*clip 1:.*row 1, column 4 ", shown["patch"])
    assert percents(shown["patch"])[:2] == pytest.approx(wanted, abs=0.5)
    assert percents(shown["patch"])[2] == pytest.approx(100 * 24 / 240)
    assert percents(shown["caption"]) == pytest.approx([100 * float(stored.mass[3].sum())], abs=0.06)


def test_a_key_that_is_pointed_at_has_the_stored_attention(shown, rows):
    stored = float(at(rows, 1, 4).mass[3, 1 * 6 + 4])
    assert shown["key"].startswith("Frame 3, row 1, column 4: about ")
    (share,), times = percents(shown["key"]), float(re.search(r"about ([\d.]+) times", shown["key"])[1])
    assert share == pytest.approx(100 * stored, rel=0.15) and times == pytest.approx(240 * stored, rel=0.15)
    red, _, blue, opacity = shown["centre"]
    assert times > 2 and red > blue and opacity == 255


def test_arrow_keys_read_the_maps_one_after_the_other(shown):
    assert shown["next"].startswith("Frame 4, row 2, column 0: ")


def test_arrow_keys_move_the_patch_within_its_frame(shown, rows):
    assert "row 2, column 3 " in shown["moved"] and "row 0, column 0 " in shown["corner"]
    assert percents(shown["corner"])[0] == pytest.approx(100 * float(at(rows, 0, 0).own_mass), abs=0.06)
    assert shown["focusable"] == [0, 0]


def test_heads_can_be_averaged(shown, rows):
    stored = rows.isel(clip=1, step=1, layer=2, query=0).own_mass.mean()
    assert "mean of heads" in shown["mean"] and "mean of heads" in shown["first"]
    assert percents(shown["mean"])[0] == pytest.approx(100 * float(stored), abs=0.06)


def test_a_frame_without_a_key_for_each_patch_is_not_shown_as_nothing(shown, rows):
    stored = rows.isel(clip=1, step=1, layer=3, query=0).mean("head")
    own, earlier, rest, _ = percents(shown["coarse"])
    assert own == pytest.approx(100 * float(stored.own_mass), abs=0.06)
    assert earlier == pytest.approx(100 * float(stored.mass.sum()), abs=0.5)
    assert rest == pytest.approx(100 * float(stored.other_mass), abs=0.5) and rest > 1
    assert shown["absent"] == "frame 0: no keys" and "not in view" in shown["unseen"]
    assert "no map" not in shown["mean"]


def test_signs_tell_values_apart_up_to_half_a_step():
    values, highest = np.geomspace(2**LOWEST, 1000, 500), np.log2(1000)
    signs = to_signs(values, highest)
    width = (highest - LOWEST) / (LEVELS - 1)
    assert np.abs(np.log2(values) - LOWEST - signs * width).max() <= width / 2 + 1e-9
    assert to_signs(np.array([0, 0.01, np.nan]), highest).tolist() == [0, 0, NONE]
    assert len(set(BASE64)) == LEVELS + 1


def test_what_the_page_has_no_room_for_is_left_out_and_said(run, rows, monkeypatch):
    one = rows.mass[0, 0, 0].size
    for most, sizes in {16: (2, 2, 4), 8: (1, 2, 4), 4: (1, 1, 4), 2: (1, 1, 2)}.items():
        monkeypatch.setattr(module, "MOST_SIGNS", most * one)
        kept = choose_rows(rows)
        assert tuple(kept.sizes[dim] for dim in ("clip", "step", "layer")) == sizes
    text = "".join(attention_section(run))
    assert "1 of 2 clips, 1 of 2 steps, 2 of 4 layers" in text and "attention_rows.nc" in text
    monkeypatch.setattr(module, "MOST_SIGNS", one - 1)
    (text,) = attention_section(run)
    assert f"{one:,}" in text and "hidden" not in text and "attention_rows.nc" in text


def test_a_run_without_rows_has_no_section_and_one_without_samples_has_maps_alone(tmp_path):
    folder = fake_run.write(tmp_path / "fake" / "a", **SMALL)
    (folder / "samples.nc").unlink()
    text = "".join(attention_section(open_run(folder)))
    assert '"pictures":[]' in text
    (folder / "attention_rows.nc").unlink()
    assert attention_section(open_run(folder)) == []
    assert 'id="attention' not in page(open_run(folder), [], {})
