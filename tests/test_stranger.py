"""A stranger's repository, with folders named as ours are, and the messages for imports that fail in it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from framelens import models
from framelens.models.loading.import_remedy import new_name

ROOT = Path(__file__).parents[1]
NETWORKS = ROOT / "tests" / "networks"
PACKAGES = sorted(file.parent.name for file in ROOT.glob("*/__init__.py"))
SMALL = "--clips 2 --steps 2 --frames 5 --context 3 --probed 1 --workers 2 --run trial --out results".split()
SMALL += "--experiments rollouts --statistics block_norms".split()


@pytest.fixture
def repository(tmp_path):
    """models/ without an __init__.py, hooks/ and training/ with one, and an adapter that imports them."""
    for folder in ("models", "hooks", "training"):
        (tmp_path / folder).mkdir()
    (tmp_path / "models" / "net.py").write_text((NETWORKS / "other_project.py").read_text())
    (tmp_path / "hooks" / "__init__.py").write_text("SEED = 3\n")
    (tmp_path / "training" / "__init__.py").write_text("raise RuntimeError('no one imports it')\n")
    adapter = (NETWORKS / "other_adapter.py").read_text()
    adapter = adapter.replace(
        "import other_project\n", "import hooks\nfrom models import net as other_project\n"
    )
    (tmp_path / "my_adapter.py").write_text(adapter.replace("def load(seed=0)", "def load(seed=hooks.SEED)"))
    return tmp_path


def run(folder, *arguments):
    """A Python of its own, started in that folder as a user would."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
        stdin=subprocess.DEVNULL,
    )


@pytest.mark.slow
def test_a_repository_with_folders_named_as_ours_is_checked_and_probed(repository):
    done = run(repository, "-m", "framelens.probes.check", "--model", "my_adapter.py:load")
    assert done.returncode == 0, done.stdout + done.stderr
    done = run(repository, "-m", "framelens.probes", "--model", "my_adapter.py:load", *SMALL)
    assert done.returncode == 0, done.stderr
    results = repository / "results" / "my_adapter" / "trial"
    assert (repository / done.stdout.strip()).samefile(results)
    assert sorted(path.name for path in (results / "clips").iterdir()) == ["0000", "0001"]


@pytest.mark.slow
def test_that_adapter_loads_from_the_checkout_too(repository):
    """There framelens' own models/ is on the path, with an __init__.py that theirs lacks."""
    program = f"import framelens; print(framelens.load('{repository}/my_adapter.py:load').net.__module__)"
    done = run(ROOT, "-c", program)
    assert done.stdout == "models.net\n", done.stderr


def test_what_an_adapter_puts_on_the_path_stays_there(tmp_path, monkeypatch):
    before = [*sys.path[:1], str(ROOT), *sys.path[1:]]
    monkeypatch.setattr(sys, "path", list(before))
    (tmp_path / "mine.py").write_text("import sys\n\nsys.path.append('/theirs')\n")
    with pytest.raises(ValueError, match="no function"):
        models.load(f"{tmp_path}/mine.py:load")
    assert sys.path == [*before, "/theirs"]


@pytest.mark.parametrize(
    ("statement", "remedy"),
    [
        ("from hooks.attention import AttentionPoint", "hooks.attention is now framelens.hooks.attention"),
        ("import models", "models is now framelens.models"),
        ("import diffusion.sampler as s", "diffusion.sampler is now framelens.diffusion.sampler"),
        ("from models._blocks import (\n    A,\n)", "models._blocks is now framelens.models.parts.blocks"),
        ("import json.nothing", f"json was found at {Path(json.__file__).parent}, which has no such module"),
        ("from beside.nothing import x", "beside was found at {folder}/beside, which has no such module"),
        ("import framelens.nothing", f"framelens was found at {ROOT}, which has no such module"),
        ("from .net import Net", "remove the leading dot"),
        ("from json import nothing", None),
        ("import nothing_of_that_name", "install it into this environment"),
    ],
)
@pytest.mark.parametrize("where", ["at its top", "in its function", "in a file beside it"])
def test_an_import_that_fails_says_what_to_do(tmp_path, statement, remedy, where):
    (tmp_path / "beside").mkdir()
    source = {
        "at its top": f"{statement}\n",
        "in its function": "def load():\n    " + statement.replace("\n", "\n    ") + "\n",
        "in a file beside it": f"import my_file_{abs(hash(statement))}\n",
    }[where]
    (tmp_path / f"my_file_{abs(hash(statement))}.py").write_text(statement)
    (tmp_path / "mine.py").write_text(source)
    with pytest.raises(ValueError) as error:
        models.load(f"{tmp_path}/mine.py:load")
    message = str(error.value)
    assert message.startswith(f"{tmp_path}/mine.py cannot be imported: ") and "\n" not in message
    assert remedy is None or message.endswith(remedy.format(folder=tmp_path))
    assert ("install" in message) == (statement == "import nothing_of_that_name")


@pytest.mark.parametrize("package", PACKAGES)
def test_a_folder_of_ours_is_refused_under_another_name(package):
    done = run(ROOT, "-c", f"import {package}")
    assert (
        done.returncode == 1 and f"ImportError: this folder is the package framelens.{package}" in done.stderr
    )
    done = run(ROOT, "-m", package)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and f"framelens.{package}" in done.stderr


@pytest.mark.parametrize("package", PACKAGES)
def test_a_top_level_package_of_ours_is_found_under_its_new_name(package):
    assert new_name(package) == f"framelens.{package}"
    assert new_name(f"{package}.nothing_like_it") == f"framelens.{package}"
