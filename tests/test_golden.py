"""The words of a run's page are those in tests/golden/page.txt: the one place where wording is reviewed.

After a change of words, look at what changes and keep it:

    FRAMELENS_WRITE_GOLDEN=1 python -m pytest tests/test_golden.py && git diff tests/golden
"""

import os
import re
from html import unescape
from pathlib import Path

import fake_run
import pytest

from framelens.reports.__main__ import kind_of
from framelens.reports.page.figure import PageFigure
from framelens.reports.page.page import page
from framelens.reports.plots import load, names
from framelens.reports.runs import open_run

pytestmark = pytest.mark.slow

GOLDEN = Path(__file__).parent / "golden" / "page.txt"
FOLDED = re.compile(r"(?<=</summary>).*?(?=</details>)", re.DOTALL)
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def words_of(html):
    """What a reader sees of a page, a line for each piece of text; without pictures and scripts."""
    html = re.sub(r"<(script|style|svg)\b.*?</\1>", "", html[html.index("<body>") :], flags=re.DOTALL)
    lines = (
        unescape(re.sub(r"\s+", " ", line)).strip() for line in re.sub(r"<[^>]*>", "\n", html).split("\n")
    )
    return "\n".join(filter(None, lines)) + "\n"


def apart(text):
    """The words of a text with a mark for each number, and the numbers as they are written."""
    return NUMBER.sub("#", text), NUMBER.findall(text)


def last_digit(number):
    """What the last digit of a written number counts."""
    return 10.0 ** -len(number.partition(".")[2])


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    """The page of a small run with every figure, without the pictures."""
    folder = tmp_path_factory.mktemp("golden")
    run = open_run(
        fake_run.write(folder / "fake" / "first", layers=4, steps=4, heads=2, clips=5, verdict="separable")
    )
    picture, drawn = folder / "picture.png", []
    picture.write_bytes(b"")
    for name in (name for name in names() if kind_of(name) == "probe"):
        figure = load(name)
        _, table = figure.draw(run)
        drawn.append(PageFigure(name, figure.title, figure.caption, figure.words(table), picture))
    return page(run, drawn, {"A figure that is not there": ["block_norms"]})


def test_fewer_than_two_thousand_words_are_not_folded(html):
    assert len(words_of(FOLDED.sub("", html)).split()) < 2000


def test_the_page_says_what_was_agreed(html):
    """Word by word; a number may differ by one in its last digit, as processors round differently."""
    found = words_of(html)
    if os.environ.get("FRAMELENS_WRITE_GOLDEN"):
        GOLDEN.write_text(found, encoding="utf-8")
    (words, numbers), (agreed, known) = apart(found), apart(GOLDEN.read_text(encoding="utf-8"))
    assert words.splitlines() == agreed.splitlines()
    for number, wanted in zip(numbers, known, strict=True):
        assert abs(float(number) - float(wanted)) <= 1.001 * last_digit(wanted), f"{number}, not {wanted}"
