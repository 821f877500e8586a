"""CONTRIBUTING.md says where new things go, and one new file there is enough."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "CONTRIBUTING.md").read_text()
SKIPPED = (".*", "runs", "build", "*.egg-info", "__pycache__", "weights", "tests", "gallery")
NEW = {
    "models": "def config(name):\n    return name\n\n\ndef build(config):\n    return config\n",
    "analyses/statistics": "reads = ('*hook_resid_post',)\n",
    "probes/experiments": "def measure(clip):\n    return {}\n",
    "reports/plots": "order = 1000\n",
    "videos/worlds": "SHAPE = (1, 4, 4)\n",
}
ASK = """
from framelens import models
from framelens.analyses import statistics
from framelens.probes import experiments
from framelens.reports import plots
from framelens.videos import worlds
new = "brand_new"
print("models", new in models.networks() and models.network(new).build(3) == 3)
print("analyses/statistics", new in statistics.names() and len(statistics.load(new).reads) == 1)
print("probes/experiments", new in experiments.names() and experiments.load(new).measure(0) == {})
print("reports/plots", new in plots.names() and plots.load(new).order == 1000)
print("videos/worlds", new in worlds.names() and worlds.load(new).SHAPE == (1, 4, 4))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Folder -> whether a new file in it was found, in a copy of the package with one such file in each."""
    copy = tmp_path_factory.mktemp("path") / "framelens"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*SKIPPED))
    for folder, source in NEW.items():
        (copy / folder / "brand_new.py").write_text(source)
        (copy / folder / "_private.py").write_text("raise RuntimeError('not an entry')\n")
    done = subprocess.run(
        [sys.executable, "-c", ASK],
        cwd=copy.parent,
        env=os.environ | {"PYTHONPATH": str(copy.parent)},
        capture_output=True,
        text=True,
        timeout=300,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    return dict(line.split() for line in done.stdout.splitlines())


@pytest.mark.slow
@pytest.mark.parametrize("folder", NEW)
def test_one_new_file_is_found(found, folder):
    assert found[folder] == "True" and f"`{folder}/`" in GUIDE


def test_the_guide_is_short_and_names_what_exists():
    assert len(GUIDE) <= 4000
    paths = re.findall(r"`([\w.]+/[\w./]*)`|`(?:\S+ )?((?:tests|models|reports)/[\w.]+)", GUIDE)
    assert len(paths) > 8
    assert not [path for pair in paths for path in pair if path and not (ROOT / path).exists()]
    targets = set(re.findall(r"`make ([a-z-]+)", GUIDE))
    assert targets <= set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
