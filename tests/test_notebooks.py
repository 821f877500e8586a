"""Every notebook runs to its last cell, shows pictures, warns of nothing, and writes where it is opened."""

import json
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
NOTEBOOKS = ROOT / "notebooks"
NAMES = sorted(path.name for path in NOTEBOOKS.glob("*.ipynb"))
OTHERS = (ROOT / "runs", NOTEBOOKS)
SHORTER = {
    "01_two_findings": {
        '"--steps", "6"': '"--steps", "2", "--frames", "8", "--probed", "1", "--workers", "1"'
    },
    "02_separating": {"counts = (4, 20)": "counts = (2, 4)", "STEPS, GIVEN = 20, 4": "STEPS, GIVEN = 4, 4"},
    "04_your_model": {"--steps 4 --frames 6": "--steps 2 --frames 4 --context 3 --workers 1"},
    "05_attention": {"--clips 5": "--clips 2"},
    "06_interventions": {"np.ndindex(lost.shape)": "np.ndindex(3, 4)"},
    "07_compare": {"--clips 5": "--clips 2"},
}
"""What is shorter here than for a reader: the same cells, with fewer steps and frames in fewer processes."""


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """The folder in which all notebooks are opened, so that they share their runs."""
    return tmp_path_factory.mktemp("opened")


@pytest.fixture(scope="module", params=NAMES)
def outputs(request, workplace):
    """The outputs of one notebook, run as a user runs it."""
    notebook = shorten(request.param, nbformat.read(NOTEBOOKS / request.param, nbformat.NO_CONVERT))
    resources = {"metadata": {"path": str(workplace)}}
    before = list_files()
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()
    assert list_files() == before, "a notebook wrote outside of the folder in which it was opened"
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def shorten(name, notebook):
    """The notebook with the replacements of SHORTER, each of which is found once."""
    for long, short in SHORTER.get(name.removesuffix(".ipynb"), {}).items():
        (cell,) = (cell for cell in notebook.cells if cell.cell_type == "code" and long in cell.source)
        cell.source = cell.source.replace(long, short)
    return notebook


def list_files():
    """The files where a notebook could write by mistake; other tests do not write there."""
    return sorted(path for folder in OTHERS for path in folder.rglob("*"))


def test_every_figure_is_a_picture(outputs):
    shown = [output.data for output in outputs if "data" in output]
    names = ("<Figure", "<Picture", "<Shown")
    figures = [data for data in shown if data.get("text/plain", "").startswith(names)]
    assert figures, "a notebook without a figure"
    assert all("image/png" in data for data in figures)
    moving = [data for data in figures if data["text/plain"].startswith("<Shown")]
    assert all("<iframe srcdoc=" in data["text/html"] for data in moving)


def test_it_runs_without_warnings(outputs):
    assert not [output.text for output in outputs if output.get("name") == "stderr"]


@pytest.mark.parametrize("name", [name for name in NAMES if name >= "05"])
def test_a_notebook_is_one_story(name):
    cells = json.loads((NOTEBOOKS / name).read_text())["cells"]
    assert len(cells) <= 15 and cells[0]["cell_type"] == "markdown"
