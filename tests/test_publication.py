"""Figures for a publication: width, formats, no title; and what holds after it."""

import fake_run
import pytest

from framelens.reports import __main__ as command
from framelens.reports.drawing import style
from framelens.reports.drawing.publication import Publication, current, publication
from framelens.reports.plots import cross_attention
from framelens.reports.runs import open_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return open_run(fake_run.write(tmp_path_factory.mktemp("runs") / "fake" / "a", clips=5, layers=4))


def test_width_and_title_are_those_of_the_publication(run):
    plain, _ = cross_attention.draw(run)
    with publication(Publication(width=3.5, has_title=False)):
        narrow, _ = cross_attention.draw(run)
    assert plain.get_figwidth() == style.WIDTH and plain.get_suptitle()
    assert narrow.get_figwidth() == 3.5 and not narrow.get_suptitle()
    assert narrow.get_figheight() == plain.get_figheight() and current() == Publication()


def test_a_title_is_broken_into_lines_that_fit(run):
    with publication(Publication(width=3.5)):
        figure, _ = cross_attention.draw(run)
    assert max(map(len, figure.get_suptitle().split("\n"))) <= 50


@pytest.mark.slow
def test_the_command_writes_the_formats_twice_the_same(run, tmp_path, capsys):
    wanted = ["--run", str(run.folder), "--figure", "cross_attention", "--format", "svg", "--no-title"]
    texts = []
    for name in ("one", "two"):
        assert command.main([*wanted, "--width", "5", "--out", str(tmp_path / name)]) == 0
        files = {path.suffix: path for path in (tmp_path / name).rglob("cross_attention.*")}
        assert set(files) == {".png", ".pdf", ".csv", ".svg"}
        texts.append(files[".svg"].read_text())
    assert texts[0] == texts[1] and "<svg" in texts[0]
    assert all(f"cross_attention{kind}" in capsys.readouterr().out for kind in [".svg"])


@pytest.mark.parametrize("width", ["0.1", "nan", "1000"])
def test_a_width_that_no_page_has_is_refused(run, width, capsys):
    assert command.main(["--run", str(run.folder), "--width", width]) == 2
    assert "--width is 2 to 20 inches" in capsys.readouterr().err
