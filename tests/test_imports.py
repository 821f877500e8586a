"""Imports run one way, heavy ones stay where they belong, and commands answer without torch."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

MAY_IMPORT = {
    "records": set(),
    "hooks": set(),
    "diffusion": set(),
    "videos": set(),
    "models": {"hooks", "diffusion", "records"},
    "analyses": set(),
    "probes": {"analyses", "models", "hooks", "diffusion", "videos", "records"},
    "training": {"models", "diffusion", "videos", "records"},
    "benchmarks": {"models", "diffusion", "videos", "records"},
    "reports": {"analyses", "records"},
}
# What is timed here are the instruments themselves.
MAY_IMPORT_AS_WELL = {
    "benchmarks/probe_overhead.py": {"analyses", "hooks", "probes"},
    "benchmarks/_probe_card.py": {"analyses", "probes"},
}
ONLY_IN = {"nnsight": "hooks/source.py", "transformer_lens": "models/_blocks.py"}
INSIDE_FUNCTIONS = {"nnsight", "diffusers", "transformers", "accelerate", "huggingface_hub"}
WITHOUT_TORCH = ("reports/", "records/", "analyses/__init__.py", "analyses/intervals.py")

PATHS = [path for package in MAY_IMPORT for path in sorted((ROOT / package).rglob("*.py"))]
FILES = [path.relative_to(ROOT).as_posix() for path in PATHS]
COMMANDS = [package for package in MAY_IMPORT if (ROOT / package / "__main__.py").exists()]


def imported(node: ast.AST, package: str) -> Iterator[str]:
    """The top-level packages that a statement imports, also through import_module("name")."""
    match node:
        case ast.Import(names=names):
            yield from (alias.name.split(".")[0] for alias in names)
        case ast.ImportFrom(level=0, module=str(module)):
            yield module.split(".")[0]
        case ast.ImportFrom():
            yield package
        case ast.Call(func=ast.Attribute(attr="import_module") | ast.Name(id="import_module" | "__import__")):
            name = node.args[0] if node.args else None
            start = name.values[0] if isinstance(name, ast.JoinedStr) else name
            if isinstance(start, ast.Constant):
                yield start.value.split(".")[0]


def at_import(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run when a file is imported: all but the bodies of functions."""
    for node in ast.iter_child_nodes(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield node
            yield from at_import(node)


def imports(file: str) -> set[str]:
    tree = ast.parse((ROOT / file).read_text())
    return {name for node in ast.walk(tree) for name in imported(node, file.split("/")[0])}


def loaded_after(program: str) -> set[str]:
    """The top-level modules that are there once a fresh Python has run the program."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{program}\nprint('\\n'.join(sys.modules), file=sys.stderr)"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    return {name.split(".")[0] for name in done.stderr.splitlines()}


@pytest.mark.parametrize("file", FILES)
def test_our_packages_are_imported_one_way(file):
    package = file.split("/")[0]
    ours = imports(file) & set(MAY_IMPORT) - {package}
    allowed = MAY_IMPORT[package] | MAY_IMPORT_AS_WELL.get(file, set())
    assert ours <= allowed, f"{file} may import {allowed or 'none of ours'}"


@pytest.mark.parametrize("file", FILES)
def test_heavy_packages_stay_in_their_files(file):
    for name, home in ONLY_IN.items():
        assert name not in imports(file) or file == home, f"only {home} imports {name}"
    tree = ast.parse((ROOT / file).read_text())
    early = {name for node in at_import(tree) for name in imported(node, "")} & INSIDE_FUNCTIONS
    assert not early, f"import {early} inside the function that needs it"
    assert "torch" not in imports(file) or not file.startswith(WITHOUT_TORCH), f"{file} must do without torch"


def test_hooks_and_analyses_load_neither_transformer_lens_nor_nnsight():
    assert not loaded_after("import hooks, analyses") & {"transformer_lens", "nnsight", "transformers"}


def test_every_report_is_drawn_without_torch():
    drawn = [file.removesuffix(".py").replace("/", ".") for file in FILES if file.startswith("reports/")]
    names = [name.removesuffix(".__init__") for name in drawn if not name.endswith("__main__")]
    assert "torch" not in loaded_after("\n".join(f"import {name}" for name in names))


@pytest.mark.parametrize("package", COMMANDS)
def test_the_help_of_a_command_answers_without_torch(package):
    ask = f"""
import runpy
sys.argv = [{package!r}, "--help"]
try:
    runpy.run_module({package!r}, run_name="__main__", alter_sys=True)
except SystemExit as exit:
    assert not exit.code, exit.code
else:
    raise AssertionError("--help did not end the command")
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
    assert {name for node in ast.walk(tree) for name in imported(node, "")} == {"a", "c", "e", "g"}
    assert {name for node in at_import(tree) for name in imported(node, "")} == {"a"}
