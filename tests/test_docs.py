"""README and docs are short, their links lead somewhere, and their Python runs."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "models/README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES += [ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
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


def build_site(folder):
    """A copy of the documents, and a function that builds the site of it."""
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    wanted = [
        name
        for name in files.stdout.split()
        if name.endswith((".md", ".png", ".yml", ".cff", "LICENSE", ".ipynb"))
    ]
    for name in [*wanted, "docs/build.py", "models/adapter_template.py"]:
        copy = folder / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, copy)
    return folder, lambda *options: subprocess.run(
        [sys.executable, "docs/build.py", *options], cwd=folder, capture_output=True, text=True, timeout=200
    )


@pytest.mark.slow
def test_the_site_is_built_and_a_link_that_leads_nowhere_stops_it(tmp_path):
    folder, build = build_site(tmp_path)
    done = build()
    assert done.returncode == 0, done.stderr
    pages = {path.name for path in (folder / "build/site").rglob("*.html")}
    notebooks = {f"{path.stem}.html" for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert {"findings.html", "architecture.html", "index.html"} | notebooks <= pages
    (folder / "docs/limits.md").write_text("# Limits\n\n[nothing](nowhere.md)\n")
    done = build()
    assert done.returncode != 0 and "nowhere.md" in done.stderr


@pytest.mark.slow
def test_a_notebook_of_the_site_is_executed_once_and_shown_with_its_outputs(tmp_path):
    folder, build = build_site(tmp_path)
    for path in (folder / "notebooks").glob("*.ipynb"):
        cells = [nbformat.v4.new_code_cell(f"print('{path.stem}', 6 * 7)")]
        nbformat.write(nbformat.v4.new_notebook(cells=cells if path.stem.startswith("07") else []), path)
    page = folder / "build/site/notebooks/07_compare.html"
    done = build()
    assert (
        done.returncode == 0 and "07_compare.ipynb" in done.stderr and "07_compare 42" not in page.read_text()
    )
    assert build("--execute").returncode == 0 and "07_compare 42" in page.read_text()
    copies = {path: path.stat().st_mtime_ns for path in (folder / "build/notebooks").glob("*.ipynb")}
    assert len(copies) == len(list((folder / "notebooks").glob("*.ipynb")))
    assert build("--execute").returncode == 0 and "07_compare 42" in page.read_text()
    assert copies == {path: path.stat().st_mtime_ns for path in (folder / "build/notebooks").glob("*.ipynb")}
