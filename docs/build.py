"""make docs: the documents and the notebooks as a site in build/site, with every link checked.

The documents stay where readers of the repository look for them; a copy with the same folders is what mkdocs
reads, so that their links hold in both places.

    make docs                  # notebooks have the outputs of their last execution, if nothing changed since
    make docs ARGS=--execute   # executes all notebooks that changed, or whose code did, in some minutes

Executed copies stay in build/notebooks; their names hold a hash of the notebook and of the code.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
from nbconvert import HTMLExporter

from framelens import reports
from framelens.records import replace_file
from framelens.records.identity import framelens_code
from framelens.records.notes import print_note

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "build" / "pages"
EXECUTED = ROOT / "build" / "notebooks"
SHOWN = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "CITATION.cff",
    "LICENSE",
    "models/README.md",
    "models/adapter_template.py",
)
FOLDERS = {"docs": "*.md", "reports/gallery": "*.png"}


def collect() -> Path:
    """Copies all documents and their pictures to build/pages."""
    shutil.rmtree(PAGES, ignore_errors=True)
    files = [ROOT / name for name in SHOWN]
    files += [file for folder, pattern in FOLDERS.items() for file in (ROOT / folder).rglob(pattern)]
    for file in files:
        copy = PAGES / file.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
    listing = PAGES / "docs/notebooks.md"  # in the repository its links lead to the notebooks themselves
    listing.write_text(listing.read_text().replace(".ipynb)", ".html)"))
    return PAGES


def convert(execute: bool) -> None:
    """Writes every notebook as HTML beside the copies of the documents."""
    bare = []
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        known = executed_copy(path)
        if execute and not known.exists():
            run(path, known)
        if not known.exists():
            bare.append(path.name)
        notebook = nbformat.read(known if known.exists() else path, as_version=4)
        html, _ = HTMLExporter().from_notebook_node(notebook, {"metadata": {"name": path.stem}})
        page = PAGES / "notebooks" / f"{path.stem}.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(html, encoding="utf-8")
    if bare:
        print_note(f"without outputs: {', '.join(bare)}; make docs ARGS=--execute runs them")


def executed_copy(path: Path) -> Path:
    """Where the executed copy of a notebook is, for its present content and the present code."""
    whole = hashlib.sha256(path.read_bytes() + framelens_code().encode())
    for file in sorted(Path(reports.__path__[0]).rglob("*")):  # figures and pages decide no number of a run
        if file.suffix in (".py", ".js", ".css"):
            whole.update(file.read_bytes())
    return EXECUTED / f"{path.stem}-{whole.hexdigest()[:12]}.ipynb"


def run(path: Path, copy: Path) -> None:
    """Executes a notebook in build/notebooks, where it writes its runs, and keeps the copy with outputs."""
    from nbclient import NotebookClient

    EXECUTED.mkdir(parents=True, exist_ok=True)
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(EXECUTED)}}).execute()
    replace_file(copy, lambda partial: nbformat.write(notebook, partial))


def main() -> int:
    """Exit status of mkdocs: not 0 where a link leads nowhere."""
    parser = argparse.ArgumentParser(prog="make docs", description="the documents as a site in build/site")
    parser.add_argument("--execute", action="store_true", help="execute the notebooks that changed")
    options = parser.parse_args()
    collect()
    convert(options.execute)
    quiet = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    return subprocess.run(command, cwd=ROOT, env=quiet).returncode


if __name__ == "__main__":
    sys.exit(main())
