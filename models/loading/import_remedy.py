"""What the user can do if a file cannot be imported.

remedy(error)       # "hooks.attention is now framelens.hooks.attention"
"""

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {file.parent.name for file in ROOT.glob("*/__init__.py")}


def remedy(error: ImportError) -> str:
    """The end of a message, after a semicolon: what to do. Empty if the error is clear already."""
    if "relative import" in str(error):
        return "; the file runs as a script: remove the leading dot"
    if not isinstance(error, ModuleNotFoundError) or error.name is None:
        return ""
    name = error.name
    package = name.partition(".")[0]
    if package in PACKAGES and package not in sys.modules:
        asked = _asked_for(error, package)
        return f"; {asked} is now {new_name(asked)}"
    if package != name:
        return f"; {package} was found at {_place(package)}, which has no such module"
    return "; install it into this environment"


def new_name(old: str) -> str:
    """The new name of a module that was in a top-level package, or the package where it is now.

    A module that was private, as models._blocks, is found by its name in a folder of that package.
    """
    package, _, rest = old.partition(".")
    wanted = rest.replace(".", "_").lstrip("_")
    modules = (file.relative_to(ROOT).with_suffix("").parts for file in (ROOT / package).rglob("*.py"))
    modules = [parts[:-1] if parts[-1] == "__init__" else parts for parts in modules]
    found = [parts for parts in modules if wanted in {"_".join(parts[n:]) for n in range(1, len(parts))}]
    best = min(
        found, key=lambda parts: (".".join(parts) != old, "parts" not in parts, parts), default=(package,)
    )
    return ".".join(["framelens", *best])


def _asked_for(error: ImportError, package: str) -> str:
    """The whole dotted name in the statement that failed. Python's error names only its first part."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return package
    file, line = Path(trace.tb_frame.f_code.co_filename), trace.tb_lineno
    statements = ast.walk(ast.parse(file.read_text())) if file.is_file() else ()
    for node in statements:
        if isinstance(node, ast.Import | ast.ImportFrom) and node.lineno <= line <= (node.end_lineno or line):
            own = [getattr(node, "module", None)] if isinstance(node, ast.ImportFrom) else []
            names = own or [alias.name for alias in getattr(node, "names", ())]
            return next((n for n in names if n and n.split(".")[0] == package), package)
    return package


def _place(package: str) -> str:
    """The folder or file of an imported package."""
    module = sys.modules.get(package)
    places = [*getattr(module, "__path__", ()), getattr(module, "__file__", None)]
    return next((place for place in places if place), "another place")
