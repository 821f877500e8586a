"""framelens installed: what a wheel holds, what works without the extras, the message for a missing one."""

import ast
import os
import shutil
import subprocess
import sys
import zipfile
from configparser import ConfigParser
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest
import tiny_wan
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import framelens
from framelens.records import origin
from framelens.records.cores import usable_cores
from framelens.records.extras import MissingPackage, extra

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
NOT_IN_A_COPY = (".venv", ".git", "runs", "build", "*.egg-info", "__pycache__", ".*_cache")
FILES = [
    file
    for file in [*ROOT.glob("*.py"), *ROOT.glob("*/**/*.py")]
    if file.relative_to(ROOT).parts[0] not in {".venv", "tests", "runs", "build", "docs"}
]
SETUP = ConfigParser()
SETUP.read(ROOT / "setup.cfg")
EXTRAS = {
    name: {canonicalize_name(r.name) for r in map(Requirement, wanted.split()) if r.name != "framelens"}
    for name, wanted in SETUP["options.extras_require"].items()
}
BASE = {canonicalize_name(Requirement(line).name) for line in SETUP["options"]["install_requires"].split()}
DISTRIBUTION = {top: canonicalize_name(names[0]) for top, names in packages_distributions().items()}
OPTIONAL = {"ftfy"}
"""Found by find_spec: prompts are read without it too."""
ONE_FRAME = """
import torch
import framelens
from framelens.diffusion.schedule import sigma_grid
model = framelens.load("dense-tiles")
x = model.geometry
noise = torch.randn(1, 1, x.channels, x.height, x.width)
video = framelens.rollout(model, noise, sigma_grid(2), torch.zeros(1, 1, dtype=torch.long))
assert video.shape == noise.shape and video.isfinite().all()
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel built without the network, from a copy: building leaves a folder build/."""
    copy, out = tmp_path_factory.mktemp("copy") / "framelens", tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*NOT_IN_A_COPY), symlinks=True)
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    python([copy, "-m", "pip", "wheel", ".", *options, "-w", out])
    (file,) = out.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The folder with the wheel's files, inside a git repository of another project."""
    folder = tmp_path_factory.mktemp("theirs")
    subprocess.run(["git", "init", "-q", folder], check=True)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def python(arguments, path=None, status=0):
    """What a fresh Python printed, on both streams; the first argument is the folder that it starts in."""
    folder, *arguments = arguments
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
        env=os.environ | ({"PYTHONPATH": str(path)} if path else {}),
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout, done.stderr


def closure(names):
    """The distributions that come with these, and they themselves."""
    found, left = set(), list(names)
    while left:
        name = left.pop()
        if name in found:
            continue
        found.add(name)
        try:
            wanted = map(Requirement, requires(name) or ())
        except PackageNotFoundError:  # for another system
            continue
        left += [
            canonicalize_name(w.name) for w in wanted if w.marker is None or w.marker.evaluate({"extra": ""})
        ]
    return found


def absent_from_base():
    """The import names of packages that come with an extra only."""
    only = set().union(*EXTRAS.values()) - closure(BASE)
    return sorted(top for top, name in DISTRIBUTION.items() if name in only)


def test_a_wheel_is_one_package_with_one_model(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if ".dist-info/" not in name]
    inside = {name.removeprefix("framelens/") for name in names}
    assert {name.split("/")[0] for name in names} == {"framelens"}
    sources = {file.relative_to(ROOT).as_posix() for file in FILES}
    assert {name for name in inside if name.endswith(".py")} == sources
    weights = {name for name in inside if name.startswith("models/weights/")}
    assert weights == {"models/weights/dense-tiles.safetensors", "models/weights/dense-tiles.emergence.nc"}
    beside = {f"reports/page/{name}" for name in ("page.css", "page.js", "attention.js")}
    beside.add("reports/paper/published.csv")
    assert inside - sources - weights == beside
    assert wheel.stat().st_size < 20e6


def test_the_installed_package_works_without_the_extras(installed, tmp_path):
    absent = absent_from_base()
    assert {"av", "diffusers", "skimage", "sklearn"} <= set(absent)
    names = [".".join(("framelens", *file.relative_to(ROOT).with_suffix("").parts)) for file in FILES]
    names = [name.removesuffix(".__init__") for name in names if not name.endswith("__main__")]
    program = f"""
import importlib, sys
sys.modules |= dict.fromkeys({absent})
refused = set()
for name in {names}:
    try:
        importlib.import_module(name)
    except ImportError as error:
        assert str(error) == "av is not installed: pip install 'framelens[videos]'", (name, error)
        refused.add(name)
print(*sorted(refused), framelens.__file__)
""".replace("import importlib", "import framelens, importlib")
    out, _ = python([tmp_path, "-c", program + ONE_FRAME], installed)
    *refused, file = out.split()
    latents = [f"framelens.probes.latents.{name}" for name in ("make", "show", "windows")]
    films = [f"framelens.videos.{name}" for name in ("encoding", "files", "fitting")]
    assert refused == [*latents, *films]
    assert Path(file).is_relative_to(installed)


def test_the_installed_package_says_where_the_other_models_are(installed, tmp_path):
    program = "import sys, framelens; sys.exit(framelens.load('dense-digits'))"
    _, err = python([tmp_path, "-c", program], installed, 1)
    (line,) = (line for line in err.splitlines() if line.startswith("ValueError: "))
    assert "'dense-digits' is not in the installed package, which holds dense-tiles" in line
    assert "models/weights/dense-digits.safetensors" in line and (ROOT / "models/weights").is_dir()
    out, err = python([tmp_path, "-m", "framelens.probes", "--model", "dense-digits"], installed, 2)
    assert not out and err.count("\n") == 1 and err.startswith("framelens probe: 'dense-digits' is not in")


def test_the_installed_package_knows_its_version_and_no_commit(installed, tmp_path):
    program = "import framelens; from framelens.records import origin; print(framelens.__version__, "
    program += "origin('x')['git_commit'], 'torch' in __import__('sys').modules)"
    out, _ = python([tmp_path, "-c", program], installed)
    assert out.split() == [SETUP["metadata"]["version"], "None", "False"]


def test_a_checkout_knows_its_version_and_its_commit():
    assert framelens.__version__ == SETUP["metadata"]["version"] and "__version__" in dir(framelens)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout
    assert origin("x")["git_commit"].removesuffix("-dirty") == head.strip()


def test_commands_start_in_any_folder(tmp_path):
    out, _ = python([tmp_path, "-m", "framelens.probes", "--help"])
    assert "--model" in out


def test_cores_are_counted_where_python_offers_less(monkeypatch):
    assert usable_cores() == len(os.sched_getaffinity(0))
    monkeypatch.delattr(os, "sched_getaffinity")  # macOS and Windows
    monkeypatch.setattr(os, "process_cpu_count", lambda: 7, raising=False)
    assert usable_cores() == 7
    monkeypatch.delattr(os, "process_cpu_count")  # before Python 3.13
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    assert usable_cores() == 5
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cores() == 1


def test_a_missing_package_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(MissingPackage) as error, extra("families"):
        import diffusers  # noqa: F401  # pyright: ignore[reportUnusedImport]
    assert isinstance(error.value, ImportError) and isinstance(error.value, ValueError)
    assert str(error.value) == "diffusers is not installed: pip install 'framelens[families]'"


@pytest.mark.parametrize(
    ("package", "extra", "command"),
    [
        ("diffusers", "families", "framelens.probes.check --model {folder}/network"),
        ("av", "videos", "framelens.probes --clips 1 --videos {folder}/clip.mp4 --workers 1"),
        ("skimage", "scores", "framelens.training.evaluate --clips 1 --steps 1 --frames 5"),
    ],
)
def test_a_command_that_needs_a_missing_package_ends_in_one_line(tmp_path, package, extra, command):
    tiny_wan.folder(tmp_path / "network", tiny_wan.stock())
    (tmp_path / "clip.mp4").touch()
    (tmp_path / f"{package}.py").write_text(f"raise ModuleNotFoundError('not here', name={package!r})\n")
    arguments = command.format(folder=tmp_path).split()
    _, err = python([tmp_path, "-m", *arguments], tmp_path, 2)
    (line,) = (line for line in err.replace("\r", "\n").splitlines() if line and "%|" not in line)
    assert line.endswith(f": {package} is not installed: pip install 'framelens[{extra}]'")


def imports(tree):
    """(name, line) of every top-level package that a file imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name.split(".")[0], node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0], node.lineno


def extras_around(tree):
    """(extra, first line, last line) of each `with extra("NAME")`."""
    for node in ast.walk(tree):
        for item in node.items if isinstance(node, ast.With) else ():
            call = item.context_expr
            if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "extra":
                yield ast.literal_eval(call.args[0]), node.lineno, node.end_lineno


def test_every_import_is_of_the_base_or_inside_its_extra():
    offenders, used = set(), set()
    for file in FILES:
        tree = ast.parse(file.read_text())
        around = list(extras_around(tree))
        for top, line in imports(tree):
            name = DISTRIBUTION.get(top, top)
            given = {extra for extra, first, last in around if first <= line <= last}
            used |= {(extra, name) for extra in given}
            is_known = top in sys.stdlib_module_names or top == "framelens" or name in BASE | OPTIONAL
            if not is_known and not any(name in EXTRAS[extra] for extra in given):
                offenders.add(f"{file.relative_to(ROOT)}:{line} imports {name}")
            if name in BASE and given:
                offenders.add(f"{file.relative_to(ROOT)}:{line}: {name} needs no extra")
    assert not offenders
    assert {extra for extra, _ in used} == {
        "completion",
        "families",
        "scores",
        "training",
        "videos",
        "worlds",
    }
