"""Imports run one way, private files stay in their folder, heavy packages stay where they belong.

python tests/test_imports.py      prints every folder with the folders that it imports
"""

import ast
import functools
import subprocess
import sys
from collections.abc import Iterable, Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from framelens.__main__ import MODULES

ROOT = Path(__file__).parents[1]
NO_ONE: set[str] = set()

MAY_IMPORT = {
    "": {
        "hooks",
        "diffusion",
        "models",
        "records",
        "reports",
    },  # the public interface, imported when a name is used
    "records": NO_ONE,
    "hooks": NO_ONE,
    "diffusion": {"records"},
    "videos": {"records"},
    "models": {"hooks", "diffusion", "records"},
    "analyses": {"records"},
    "probes": {"analyses", "models", "hooks", "diffusion", "videos", "records"},
    "training": {"analyses", "models", "diffusion", "videos", "records"},
    "benchmarks": {"models", "diffusion", "videos", "records"},
    "reports": {"analyses", "records"},
}
"""What a top-level folder may import of the others."""

INSIDE = {
    "models/parts": NO_ONE,
    "models/cost": {"models/parts", "models"},  # calibration runs blocks of models/dense.py
    "models/encoders": {"models/loading"},
    "models/loading": {"models"},  # the registry; families only through it
    "models/variants": {"models/parts", "models/separated", "models"},
    "models/separated": {"models/parts", "models"},  # models/__init__.py, which builds the network of halves
    "models": {"models/parts", "models/loading", "models/wan", "models/far_long"},
    "models/wan": {"models/parts", "models/loading"},
    "models/oasis": {"models/parts", "models/loading"},
    "models/anyflow": {"models/parts", "models/loading"},
    "models/far_long": {"models/parts", "models/loading", "models"},  # models/official.py
    "analyses/sums": {"analyses"},
    "analyses/statistics": {"analyses/sums", "analyses"},
    "analyses/decision": {"analyses"},
    "analyses": NO_ONE,
    "probes/chunk": NO_ONE,
    "probes/experiments": {"probes/chunk", "probes/run"},
    "probes/run": {"probes/chunk", "probes/experiments"},  # the registry; experiments only through it
    "probes/plan": {"probes/run"},
    "probes/check": {"probes/run", "probes/chunk"},
    "probes/estimate": {"probes/run", "probes/chunk"},
    "probes/latents": {"probes/run"},
    "probes": {"probes/run", "probes/plan", "probes/estimate", "probes/experiments"},
    "benchmarks/scd": {"benchmarks"},
    "benchmarks/overhead": {"benchmarks"},
    "benchmarks/growth": {"benchmarks", "benchmarks/overhead"},
    "benchmarks/sampler": {"benchmarks"},
    "benchmarks/training": {"benchmarks", "benchmarks/scd"},  # its networks
    "benchmarks/gpu": {"benchmarks", "benchmarks/scd", "benchmarks/overhead"},  # it times what they time
    "reports/drawing": {"reports"},
    "reports/plots": {"reports/drawing", "reports"},
    "reports/findings": {"reports/drawing", "reports"},
    "reports/paper": {"reports/plots", "reports/drawing", "reports"},
    "reports/page": {"reports/drawing", "reports/plots", "reports/findings", "reports"},
    "reports/comparison": {"reports/page", "reports/findings", "reports/drawing", "reports"},
    "reports": {"reports/comparison", "reports/paper", "reports/page", "reports/plots", "reports/drawing"},
    "videos/worlds": {"videos"},
    "videos/datasets": {"videos"},
}
"""What a folder may import of the other folders of its package."""

REGISTRIES = {
    "probes/run/": "probes/experiments",
    "probes/estimate/": "probes/experiments",
    "models/loading/": "models",
}
"""Files that may import a registry's package itself, and none of its entries."""

MAY_IMPORT_AS_WELL = {
    "benchmarks/overhead": {"analyses", "hooks", "probes"},
    "benchmarks/growth": {"hooks", "probes", "reports"},
    "benchmarks/gpu": {"hooks", "probes", "reports"},
}
"""What is timed here are the instruments themselves; some also draw their figure or write their page."""

ONLY_IN = {"nnsight": "hooks/source.py", "transformer_lens": "models/parts/blocks.py"}
INSIDE_FUNCTIONS = {"nnsight", "diffusers", "transformers", "accelerate", "huggingface_hub"}
WITHOUT_TORCH = ("__init__.py", "reports/", "records/", "analyses/__init__.py", "analyses/intervals.py")
HEAVY = {"transformer_lens", "nnsight", "transformers", "diffusers"}

PACKAGES = [package for package in MAY_IMPORT if package]
FILES = ["__init__.py", "__main__.py", "completion.py"] + sorted(
    path.relative_to(ROOT).as_posix() for package in PACKAGES for path in (ROOT / package).rglob("*.py")
)
TESTS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("*.py"))
TIMED = {"bench scd", "bench overhead"}
"""Their help names the arms that can be timed, and the networks name these."""
COMMANDS = [name.split() for name in MODULES.keys() - TIMED]


def imported(node: ast.AST) -> Iterator[str]:
    """The dotted names that a statement imports, also through import_module("name")."""
    match node:
        case ast.Import(names=names):
            yield from (alias.name for alias in names)
        case ast.ImportFrom(level=0, module=str(module), names=names):
            yield from (f"{module}.{alias.name}" for alias in names)
        case ast.Call(func=ast.Attribute(attr="import_module") | ast.Name(id="import_module" | "__import__")):
            name = node.args[0] if node.args else None
            start = name.values[0] if isinstance(name, ast.JoinedStr) else name
            if isinstance(start, ast.Constant):
                yield start.value


def at_import(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run when a file is imported: all but the bodies of functions."""
    for node in ast.iter_child_nodes(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield node
            yield from at_import(node)


@functools.cache
def parsed(file: str) -> ast.Module:
    return ast.parse((ROOT / file).read_text())


@functools.cache
def imports(file: str) -> frozenset[str]:
    """The dotted names that a file imports anywhere."""
    return frozenset(name for node in ast.walk(parsed(file)) for name in imported(node))


def top_levels(names: Iterable[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def home(name: str) -> str | None:
    """The file of ours that a dotted name of framelens is in: that of the module, or of its package."""
    parts = name.split(".")
    if parts[0] != "framelens":
        return None
    for n in range(len(parts), 0, -1):
        path = "/".join(parts[1:n])
        for file in (f"{path}.py", f"{path}/__init__.py".removeprefix("/")):
            if path and file in FILES or file == "__init__.py":
                return file
    return None


def folder(file: str) -> str:
    """The folder of a file, "" for the root."""
    return file.rpartition("/")[0]


def arrows(file: str) -> set[str]:
    """The files of ours that a file imports."""
    found = {home(name) for name in imports(file)}
    return {target for target in found if target is not None and target != file}


def graph() -> dict[str, set[str]]:
    """Every folder with the folders that its files import. A registry's own file is not an arrow."""
    folders: dict[str, set[str]] = {folder(file): set() for file in FILES}
    for file in FILES:
        folders[folder(file)] |= {folder(target) for target in arrows(file) if not is_registry(file, target)}
        folders[folder(file)] -= {folder(file)}
    return folders


def is_registry(file: str, target: str) -> bool:
    """Whether the import asks a registry for an entry by name, and imports none itself."""
    return any(file.startswith(by) and target == f"{of}/__init__.py" for by, of in REGISTRIES.items())


def table() -> str:
    """Every folder in the order of the arrows: what is imported stands above what imports it."""
    found = graph()
    lines = (
        f"{name or 'framelens':22} -> {', '.join(sorted(found[name])) or '-'}" for name in in_order(found)
    )
    return "\n".join(lines)


def in_order(found: dict[str, set[str]]) -> list[str]:
    """The folders so that each comes after those it imports; raises CycleError where that cannot be.

    An import of a file of the folder above is not an arrow here: those files serve its siblings too.
    """
    below = {
        name: {t for t in targets if t and not name.startswith(f"{t}/")} for name, targets in found.items()
    }
    return list(TopologicalSorter(below).static_order())


def loaded_after(program: str) -> set[str]:
    """The top-level modules that are there once a fresh Python has run the program."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{program}\nprint('\\n'.join(sys.modules), file=sys.stderr)"],
        cwd=ROOT.parent,
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    return top_levels(set(done.stderr.splitlines()))


@pytest.mark.slow
def test_no_file_imports_a_folder_of_ours_as_if_it_were_a_package_of_its_own():
    offenders = {file: top_levels(imports(file)) & set(PACKAGES) for file in FILES + TESTS}
    assert not {file: names for file, names in offenders.items() if names}


def test_packages_are_imported_one_way():
    offenders = {}
    for file in FILES:
        package = file.split("/")[0] if "/" in file else ""
        ours = {target.split("/")[0] for target in arrows(file) if "/" in target} - {package}
        allowed = MAY_IMPORT[package] | MAY_IMPORT_AS_WELL.get(folder(file), NO_ONE)
        if ours - allowed:
            offenders[file] = ours - allowed
    assert not offenders


def test_folders_inside_a_package_are_imported_one_way():
    offenders = {}
    for name, targets in graph().items():
        inside = {target for target in targets if target.split("/")[0] == name.split("/")[0] and name}
        if inside - INSIDE.get(name, NO_ONE):
            offenders[name] = inside - INSIDE.get(name, NO_ONE)
    assert not offenders


def test_no_two_folders_import_each_other_and_the_table_shows_every_arrow(capsys):
    shown = table()
    assert shown.count("\n") + 1 == len(graph())
    with capsys.disabled():
        print(f"\n{shown}")


def test_the_files_of_a_folder_import_each_other_in_no_circle():
    TopologicalSorter(
        {file: {t for t in arrows(file) if not is_registry(file, t)} for file in FILES}
    ).prepare()


@pytest.mark.slow
def test_a_private_file_is_imported_by_its_own_folder_only():
    offenders = set()
    for file in FILES + TESTS:
        for target in {home(name) for name in imports(file)} - {None}:
            name = target.rpartition("/")[2]
            if name.startswith("_") and not name.startswith("__") and folder(target) != folder(file):
                offenders.add(f"{file} imports {target}")
    assert not offenders


def test_a_private_name_is_imported_by_its_own_folder_only():
    offenders = set()
    for file in FILES:
        for name in imports(file):
            last, target = name.rpartition(".")[2], home(name)
            if (
                target
                and last.startswith("_")
                and not last.startswith("__")
                and folder(target) != folder(file)
            ):
                offenders.add(f"{file} imports {name}")
    assert not offenders


def test_heavy_packages_stay_in_their_files():
    for file in FILES:
        names = top_levels(imports(file))
        for name, only in ONLY_IN.items():
            assert name not in names or file == only, f"only {only} imports {name}"
        early = {name for node in at_import(parsed(file)) for name in imported(node)}
        early = top_levels(early) & INSIDE_FUNCTIONS
        assert not early, f"{file}: import {early} inside the function that needs it"
        assert "torch" not in names or not file.startswith(WITHOUT_TORCH), f"{file} must do without torch"


@pytest.mark.slow
def test_hooks_and_analyses_load_no_heavy_package():
    assert not loaded_after("from framelens import hooks, analyses") & HEAVY


@pytest.mark.slow
def test_a_loaded_model_brings_no_compiler():
    load = "from framelens import models; models.load('dense-tiles'); models.load('scd-tiles')"
    loaded_after(f"{load}; assert 'torch._dynamo' not in sys.modules")


def test_the_package_itself_loads_nothing():
    assert not loaded_after("import framelens; framelens.__all__") & {"torch", "numpy", "xarray"}


@pytest.mark.slow
def test_reports_intervals_and_names_of_statistics_do_without_torch():
    drawn = [file.removesuffix(".py").replace("/", ".") for file in FILES if file.startswith("reports/")]
    names = [f"framelens.{name.removesuffix('.__init__')}" for name in drawn if not name.endswith("__main__")]
    intervals = "from framelens.analyses import intervals, statistics\nstatistics.names()"
    loaded = loaded_after("\n".join([*(f"import {name}" for name in names), intervals]))
    assert not loaded & {"torch", *HEAVY}


@pytest.mark.slow
def test_the_help_of_every_command_answers_without_torch():
    ask = f"""
import runpy
for command in {COMMANDS!r}:
    sys.argv = ["framelens", *command, "--help"]
    try:
        runpy.run_module("framelens", run_name="__main__", alter_sys=True)
    except SystemExit as exit:
        assert not exit.code, (command, exit.code)
    else:
        raise AssertionError(f"{{command}} --help did not end the command")
    heavy = {{"torch", "transformer_lens", "nnsight"}} & set(sys.modules)
    assert not heavy, (command, heavy)
"""
    assert not loaded_after(ask) & {"torch", "transformer_lens", "nnsight"}


def test_the_rules_notice_every_way_to_import():
    source = """
import a.b
def f():
    from c import d
    importlib.import_module("e.f")
    import_module(f"g.{name}")
"""
    tree = ast.parse(source)
    assert {name for node in ast.walk(tree) for name in imported(node)} == {"a.b", "c.d", "e.f", "g."}
    assert {name for node in at_import(tree) for name in imported(node)} == {"a.b"}


if __name__ == "__main__":
    print(table())
