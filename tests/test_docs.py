"""README and docs are short, their links lead somewhere, and their Python runs."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "models/README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES += [path for path in [ROOT / "CONTRIBUTING.md"] if path.exists()]
CODE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = [
    (page.relative_to(ROOT).as_posix(), code) for page in PAGES for code in CODE.findall(page.read_text())
]


def test_the_readme_is_read_in_one_go():
    assert len((ROOT / "README.md").read_text()) <= 8000


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_of_a_page_leads_to_a_file_and_a_heading(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        path, _, heading = target.partition("#")
        if "://" in path:
            continue
        file = (page.parent / path) if path else page
        assert file.exists(), f"{target} leads nowhere"
        if heading:
            titles = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
            assert heading in anchors, f"{target}: no such heading"


@pytest.mark.parametrize(("page", "code"), BLOCKS, ids=[page for page, _ in BLOCKS])
def test_the_python_of_a_page_runs(page, code):
    exec(compile(code, page, "exec"), {})


def test_the_readme_shows_python():
    assert any(page == "README.md" for page, _ in BLOCKS)
