"""Every notebook runs to its last cell, shows its figures as pictures, and warns of nothing."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

pytestmark = pytest.mark.slow

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


@pytest.fixture(scope="module", params=sorted(path.name for path in NOTEBOOKS.glob("*.ipynb")))
def outputs(request):
    """The outputs of one notebook, run as a user runs it."""
    notebook = nbformat.read(NOTEBOOKS / request.param, nbformat.NO_CONVERT)
    resources = {"metadata": {"path": str(NOTEBOOKS)}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def test_every_figure_is_a_picture(outputs):
    shown = [output.data for output in outputs if "data" in output]
    figures = [data for data in shown if data.get("text/plain", "").startswith(("<Figure", "<Picture"))]
    assert figures, "a notebook without a figure"
    assert all("image/png" in data for data in figures)


def test_it_runs_without_warnings(outputs):
    assert not [output.text for output in outputs if output.get("name") == "stderr"]
