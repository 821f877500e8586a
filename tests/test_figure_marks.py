"""What every figure relies on: lone points carry their interval, logarithmic ticks are plain numbers."""

import re

import numpy as np
import xarray as xr

from framelens.reports.drawing import style
from framelens.reports.page.page import missing_section
from framelens.reports.plots import skip


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
