"""What every figure relies on: lone points carry their interval, logarithmic ticks are plain numbers."""

import re

import fake_compare
import fake_run
import numpy as np
import pytest
import xarray as xr
from matplotlib.colors import to_rgb

from framelens.analyses.intervals import spell_interval
from framelens.reports import plots
from framelens.reports.drawing import colours, style
from framelens.reports.page.page import missing_section
from framelens.reports.plots import known_state, lag, samples, skip
from framelens.reports.runs import open_run


def ticks(axes):
    """What is written along the vertical axis, within its limits."""
    axes.figure.draw_without_rendering()
    low, high = axes.get_ylim()
    labels = [*axes.get_yticklabels(), *axes.get_yticklabels(minor=True)]
    return [
        label.get_text() for label in labels if label.get_text() and low <= label.get_position()[1] <= high
    ]


def test_a_point_without_neighbours_has_its_interval_drawn():
    mean = np.array([1.0, 2.0, np.nan, 4.0, np.nan])
    values = xr.Dataset({name: ("x", mean + off) for name, off in (("mean", 0), ("low", -0.5), ("high", 1))})
    axes = style.canvas(2).subplots()
    style.line(axes, np.arange(5), values, "trained")
    (bars,) = [line for line in axes.collections if hasattr(line, "get_segments")]
    assert [segment.tolist() for segment in bars.get_segments()] == [[[3, 3.5], [3, 5.0]]]


def test_logarithmic_ticks_are_plain_numbers_also_over_a_small_range():
    for low, high, expected in ((0.14, 0.26, "0.2"), (0.01, 1.0, "0.1"), (1.0, 30.0, "10")):
        axes = style.canvas(2).subplots()
        axes.plot([low, high])
        style.logarithmic(axes)
        written = ticks(axes)
        assert expected in written and len(written) >= 2, written
        assert all(str(float(text)) and "e" not in text for text in written), written


def test_the_page_names_left_out_figures_by_title_and_their_files():
    section = "\n".join(missing_section({"Norm that each block writes": ["block_norms", "cut"]}))
    assert re.search(r"<li>Norm that each block writes\b.*block_norms\.nc, cut\.nc</li>", section)


def test_a_span_of_one_layer_is_called_by_that_layer():
    assert [skip._span(name) for name in ("4-4", "8-10")] == ["4", "8–10"]


def test_an_interval_reads_unlike_a_point():
    assert spell_interval(0.83, 0.8, 0.86) == "0.83 [0.80, 0.86]"
    assert spell_interval(97.93, 97.6, 98.1, 0, " %") == "97.9 % [97.6, 98.1]"
    assert spell_interval(6, 6, 6, 0) == "6 ± 0"
    assert spell_interval(-0.00001, -0.00002, 0.0) == "0.00 ± 0"
    assert [spell_interval(0.5, np.nan, np.nan), spell_interval(0.5, None, None)] == ["0.50", "0.50"]


def test_a_noise_level_has_one_colour_in_all_figures_and_noise_is_darkest(tmp_path):
    run = open_run(fake_run.write(tmp_path / "fake/a", layers=4, steps=4))
    shades = {}
    for name in ("depth", "known_state"):
        for axes in plots.load(name).draw(run)[0].axes:
            for line in axes.lines:
                if line.get_label().startswith("sigma "):
                    shades.setdefault(line.get_label(), set()).add(to_rgb(line.get_color()))
    assert {"sigma 1", "sigma 0.75", "sigma 0.25"} <= set(shades)
    assert all(len(found) == 1 for found in shades.values()), shades
    ordered = sorted(shades, key=lambda label: float(label.split()[1]))
    brightness = [sum(next(iter(shades[label]))) for label in ordered]
    assert brightness == sorted(brightness, reverse=True)


def test_dark_is_much_in_every_map_of_a_quantity(tmp_path):
    run = open_run(fake_run.write(tmp_path / "fake/a", layers=4, steps=4))
    for name in ("heads", "leave_one_out", "step_similarity", "cut"):
        images = [image for axes in plots.load(name).draw(run)[0].axes for image in axes.images]
        maps = [image.cmap for image in images if image.cmap.name != colours.DIVERGING]
        assert maps and all(sum(palette(0.0)[:3]) > 2 * sum(palette(1.0)[:3]) for palette in maps), name


@pytest.mark.parametrize(
    "values, reach", [([0.9, 1.1], (2, False)), ([0.3, 3.0], (4, False)), ([0.01, 1], (16, True))]
)
def test_the_colour_bar_of_lags_reaches_as_far_as_the_data(values, reach):
    assert lag.reach_of(np.array([*values, np.nan])) == reach


def test_what_no_layer_knows_has_one_panel_for_all(tmp_path):
    run = open_run(fake_run.write(tmp_path / "fake/a", clips=12))
    stored = run.read("known_state")
    assert [known_state.is_known(stored.isel(target=at)) for at in range(stored.sizes["target"])] == [
        True
    ] * 5
    flat = stored.assign(score=stored.score_shuffled * 0 + stored.chance + 0 * stored.score)
    assert not known_state.is_known(flat.isel(target=0))
    (run.folder / "known_state.nc").unlink()
    only = flat.score.where(flat.target == "speed", stored.score)
    stored.assign(score=only).to_netcdf(run.folder / "known_state.nc", engine="netcdf4")
    figure, table = known_state.draw(run)
    (last,) = [axes for axes in figure.axes if axes.get_title(loc="left") == "Known to no layer"]
    assert [label.get_text() for label in last.get_yticklabels()] == ["speed"]
    assert set(table["panel"]) == {str(name) for name in stored.target.values}


def test_frames_that_were_not_generated_are_left_empty(tmp_path):
    folder = fake_run.write(tmp_path / "fake/a", layers=4, steps=4)
    stored = xr.load_dataset(folder / "samples.nc", engine="netcdf4")
    gone = (stored.frame == 5) & (stored["mode"] == "teacher_forced")
    (folder / "samples.nc").unlink()
    stored.assign(psnr=stored.psnr.where(~gone)).to_netcdf(folder / "samples.nc", engine="netcdf4")
    figure, _ = samples.draw(open_run(folder))
    empty = [axes for axes in figure.axes if [text for text in axes.texts if "generated" in text.get_text()]]
    assert len(empty) == 1 and not empty[0].images
    assert "teacher forced, at probed frames" in figure.axes[-1].get_legend_handles_labels()[1]


def test_no_legend_shows_an_identifier(tmp_path):
    run = open_run(fake_compare.write(tmp_path / "compare/a"))
    for name in ("compare_training", "compare_frames"):
        figure, _ = plots.load(name).draw(run)
        named = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
        assert "token concat 8+4" in named and not [text for text in named if "_" in text]
    assert style.spell_arm("token_concat_projected 8+4") == "token concat, projected 8+4"
