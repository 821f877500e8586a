"""What a run is computed on: weights, configuration, code and input files. Compared before it is resumed.

    identity = Identity(weights, config, (CodeFile.read(path, "net.py"),), (Input.read("film", path),), code)
    found = compare(before, identity)
    found.numbers, found.code, found.texts         # in plain words; all empty for the same identity

Imports nothing heavy.
"""

import ast
import hashlib
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.util import cache_from_source
from pathlib import Path
from typing import Any

from framelens.records import ROOT, package_version, replace_file

DECIDING = (
    "hooks", "diffusion", "videos", "models", "analyses", "probes/chunk", "probes/experiments", "probes/run",
)  # fmt: skip
"""Folders of framelens whose code decides the numbers of a probe."""
SHORT = 12
"""Digits of a hash that stand for the code of framelens."""
SHOWN, LONGEST, NOT_STORED = 4, 32, "not stored"
"""Differences named in a message, letters of a value in it, and what is not there."""


@dataclass(frozen=True)
class CodeFile:
    """A source file: the SHA-256 of its text, and of its code without comments and docstrings."""

    name: str
    text: str
    code: str

    @classmethod
    def read(cls, path: Path, name: str) -> "CodeFile":
        """The file at that path under that name; a file that is not Python has its text as code."""
        held = path.read_bytes()
        text = hashlib.sha256(held).hexdigest()
        return cls(name, text, _hash_code(held) if path.suffix == ".py" else text)


@dataclass(frozen=True)
class Input:
    """A file that clips or prompts were read from: all of its bytes are hashed."""

    kind: str
    """film, recording (of a data set), latents or prompts."""
    name: str
    bytes: int
    sha256: str

    @classmethod
    def read(cls, kind: str, path: Path) -> "Input":
        """The file at that path."""
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return cls(kind, path.name, path.stat().st_size, digest)


@dataclass(frozen=True)
class Identity:
    """What a run was computed on, beside its settings."""

    weights: str
    """The SHA-256 of all parameters and buffers as loaded."""
    config: dict[str, Any]
    """The model's own description of its configuration; empty if it has none."""
    code: tuple[CodeFile, ...]
    """An adapter, and the local modules that it imports."""
    inputs: tuple[Input, ...]
    framelens: str
    """The version of framelens, and a hash of its code."""


@dataclass(frozen=True)
class Differences:
    """What two identities do not have in common, in plain words."""

    numbers: list[str]
    """Other weights, another configuration or other inputs."""
    code: list[str]
    """Other code of an adapter."""
    texts: list[str]
    """Files of an adapter with the same code, in which comments or docstrings differ."""


def compare(before: Identity, now: Identity) -> Differences:
    """The differences; empty lists where there are none."""
    numbers = [] if before.weights == now.weights else ["the weights differ"]
    if before.config != now.config:
        numbers.append(f"another configuration: {describe_differences(before.config, now.config)}")
    return Differences(
        [*numbers, *_compare_inputs(before.inputs, now.inputs)], *_compare_code(before.code, now.code)
    )


def _compare_inputs(before: Iterable[Input], now: Iterable[Input]) -> Iterator[str]:
    old, new = ({file.name: file for file in files} for files in (before, now))
    for name in new:
        kind = new[name].kind
        if name not in old:
            yield f"the {kind} {name} was not read"
        elif old[name].bytes != new[name].bytes:
            yield f"the {kind} {name} had {old[name].bytes} bytes, now {new[name].bytes}"
        elif old[name] != new[name]:
            yield f"the {kind} {name} has other bytes"
    yield from (f"the {old[name].kind} {name} is not read now" for name in old if name not in new)


def _compare_code(before: Iterable[CodeFile], now: Iterable[CodeFile]) -> tuple[list[str], list[str]]:
    """Files with other code, and those in which only the text differs."""
    old, new = ({file.name: file for file in files} for files in (before, now))
    code = [f"{name} was not imported" for name in new if name not in old]
    code += [f"{name} is not imported now" for name in old if name not in new]
    changed = [name for name in new if name in old and new[name].text != old[name].text]
    texts = [name for name in changed if new[name].code == old[name].code]
    return code + [f"{name} has other code" for name in changed if name not in texts], texts


def _hash_code(source: bytes) -> str:
    """The SHA-256 of a syntax tree without comments and docstrings; of the bytes if there is none."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return hashlib.sha256(source).hexdigest()
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [part for part in body if not _is_text(part)]  # pyright: ignore[reportAttributeAccessIssue]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


def _is_text(statement: ast.AST) -> bool:
    """Whether a statement is a text that is not used, such as a docstring."""
    value = statement.value if isinstance(statement, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


@cache
def framelens_code() -> str:
    """The version of framelens and a hash of the code in DECIDING, as 0.1.0+3f2a7c91d05e.

    Parsing these files takes half a second, so the hash is kept with a hash of their text.
    """
    files = [path for folder in DECIDING for path in sorted((ROOT / folder).rglob("*.py"))]
    texts = {path.relative_to(ROOT).as_posix(): path.read_bytes() for path in files}
    text = hashlib.sha256(sys.version.encode() + Path(__file__).read_bytes())
    for name, held in texts.items():
        text.update(f"{name} {hashlib.sha256(held).hexdigest()}".encode())
    code = _read_kept(text.hexdigest())
    if code is None:
        whole = hashlib.sha256()
        for name, held in texts.items():
            whole.update(f"{name} {_hash_code(held)}".encode())
        code = whole.hexdigest()[:SHORT]
        _keep(text.hexdigest(), code)
    return f"{package_version()}+{code}"


def _kept_file() -> Path:
    """Beside what Python keeps of the files that it compiled."""
    return Path(cache_from_source(__file__)).with_name("framelens_code.txt")


def _read_kept(text: str) -> str | None:
    """The hash of the code of files with that text; None where it is not kept."""
    try:
        kept = _kept_file().read_text().split()
    except (OSError, ValueError):
        return None
    return kept[1] if len(kept) == 2 and kept[0] == text and len(kept[1]) == SHORT else None


def _keep(text: str, code: str) -> None:
    """Keeps that hash, unless Python is to keep nothing or the folder cannot be written."""
    if not sys.dont_write_bytecode:
        with suppress(OSError):
            replace_file(_kept_file(), lambda partial: partial.write_text(f"{text} {code}"))


def describe_differences(was: Any, wanted: Any) -> str:
    """What was and what is wanted, by name where they differ: steps 20, not 10; seed 0, not 1."""
    found = list(_find_differences("", was, wanted))
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return (
        "; ".join(f"{name} {_shorten(a)}, not {_shorten(b)}".strip() for name, a, b in found[:SHOWN]) + more
    )


def _find_differences(name: str, was: Any, wanted: Any) -> Iterator[tuple[str, Any, Any]]:
    if not (isinstance(was, dict) and isinstance(wanted, dict)):
        yield name, was, wanted
        return
    for part in (*wanted, *(was.keys() - wanted.keys())):
        before, after = was.get(part, NOT_STORED), wanted.get(part, NOT_STORED)
        if before != after:
            yield from _find_differences(f"{name}.{part}".strip("."), before, after)


def _shorten(value: Any) -> str:
    """The value, of a long one its two ends."""
    text = str(value)
    half = LONGEST // 2
    return text if len(text) <= LONGEST else f"{text[:half]}...{text[-half:]}"
