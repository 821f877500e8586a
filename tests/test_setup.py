"""Packaging, commands and checks speak of the same packages, versions and names."""

import configparser
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
MAKEFILE = (ROOT / "Makefile").read_text()
PACKAGES = sorted(file.parent.name for file in ROOT.glob("*/__init__.py"))
NOTEBOOKS = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture
def config() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


@pytest.fixture
def pins() -> dict[str, Requirement]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(requirement.name): requirement for requirement in requirements}


def test_every_package_is_installed(config):
    folders = (file.parent for package in PACKAGES for file in (ROOT / package).rglob("__init__.py"))
    names = {".".join(["framelens", *folder.relative_to(ROOT).parts]) for folder in folders}
    assert set(config["options"]["packages"].split()) == names | {"framelens"}


def test_every_requirement_is_pinned_within_its_bound(config, pins):
    wanted = [config["options"]["install_requires"], *config["options.extras_require"].values()]
    for requirement in map(Requirement, "\n".join(wanted).split()):
        if requirement.name == "framelens":  # an extra that is made of others
            continue
        (pin,) = pins[canonicalize_name(requirement.name)].specifier
        assert requirement.specifier.contains(pin.version), f"{requirement} but {pin} is pinned"
        assert requirement.specifier, f"{requirement} needs a lower bound"


def test_pins_are_exact_and_leave_the_build_of_torch_open(pins):
    for name, requirement in pins.items():
        (pin,) = requirement.specifier
        assert pin.operator == "==" and "+" not in pin.version, f"{requirement} is not exact"
        assert not name.startswith(("nvidia-", "triton")), f"{name} belongs to one build of torch"


def test_every_command_explains_itself():
    phony = re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert phony is not None
    commands = re.findall(r"^([a-z-]+):(?!=)", MAKEFILE, re.MULTILINE)
    explained = re.findall(r"^([a-z-]+):.*? ## \S", MAKEFILE, re.MULTILINE)
    assert explained == commands == phony[1].split()


def test_all_holds_every_extra_that_a_user_may_want(config):
    extras = config["options.extras_require"]

    def packages(names: set[str]) -> set[str]:
        wanted = [Requirement(line) for name in names for line in extras[name].split()]
        inner = [packages(one.extras) for one in wanted if one.name == "framelens"]
        return {one.name for one in wanted if one.name != "framelens"}.union(*inner)

    assert packages({"all"}) == packages(extras.keys() - {"all", "dev"})


def run_make(*words: str) -> subprocess.CompletedProcess:
    """make as a user calls it, also if these tests were started by make."""
    user = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(["make", *words], cwd=ROOT, env=user, capture_output=True, text=True)


@pytest.mark.parametrize("words", ["model=x", "run=runs/x", "Args=--quick", "python=python3", "MODLE=x"])
def test_make_refuses_a_variable_that_does_not_exist(words):
    done = run_make("help", words)
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.count("\n") == 1 and f"no variable {words.partition('=')[0]}:" in done.stderr


@pytest.mark.parametrize("words", ["MODEL=x", "RUN=runs/x", "PAPER=1", "ARGS=--quick", "PYTHON=python3"])
def test_make_takes_the_variables_that_exist(words):
    done = run_make("help", words)
    assert done.returncode == 0, done.stderr


def test_make_figures_draws_those_of_the_paper():
    done = run_make("--dry-run", "figures", "PAPER=1", "RUN=runs/a/b")
    assert "framelens figures --run runs/a/b --paper" in done.stdout, done.stderr


def test_commands_of_make_keep_what_python_compiled(tmp_path, monkeypatch):
    added = tmp_path / "added.mk"
    added.write_text(f'show:\n\t@{sys.executable} -c "import sys; print(sys.dont_write_bytecode)"\n')
    for forbidden in ("", "1"):
        monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", forbidden)
        done = run_make("--silent", "--file", "Makefile", "--file", str(added), "show")
        assert done.stdout.strip() == "False", done.stderr


def test_files_are_short_enough_to_read():
    sources = [ROOT / "__init__.py"] + [file for folder in PACKAGES for file in (ROOT / folder).rglob("*.py")]
    lengths = {file.relative_to(ROOT).as_posix(): len(file.read_text().splitlines()) for file in sources}
    assert not {file: lines for file, lines in lengths.items() if lines > 250}, "split files over 250 lines"


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_stored_without_outputs(name):
    cells = json.loads((ROOT / "notebooks" / name).read_text())["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells), f"clear {name}"
