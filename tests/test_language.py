"""What a person reads is plain technical English, and names mean one thing: docs/terms.md has the words.

python tests/test_language.py [folder ...]      prints every offence with file and line
"""

import ast
import io
import json
import re
import sys
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from framelens.diffusion.contract import Traits

ROOT = Path(__file__).parents[1]
TERMS = ROOT / "docs/terms.md"
FOLDERS = (
    "records hooks diffusion videos models analyses probes training benchmarks reports tests notebooks docs"
)
SPECIAL = {"gallery", ".venv", "golden"}

PARTICIPLE = re.compile(r"[a-z]+ed$")
IRREGULAR = set(
    "told said drawn built taken apart alike shown kept made seen given found chosen spelt left known "
    "written met held begun thrown worn lost sent put-together gone read-out begun stood".split()
)
VERBS = set("embed seed feed need speed read shed spread proceed exceed bleed".split())
"""Words that end like a participle and are verbs."""


def table(heading: str) -> list[list[str]]:
    """The rows of the table under that heading of docs/terms.md."""
    section = TERMS.read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


WORDS = [row[0] for name in ("Words to replace", "Names that are metaphors") for row in table(name)]
AVOIDED = re.compile(
    rf"\b({'|'.join(sorted(map(re.escape, WORDS), key=len, reverse=True))})\b", re.IGNORECASE
)
READ = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
KEY = re.compile(r"""(['"])\w*\1""")
"""A string that is one identifier, such as a key of a file."""
TRAITS = {field.name for field in fields(Traits)}
REPEATED = {row[0] for row in table("Function names")}


def files(folder: str, suffix: str) -> list[Path]:
    """The files of that folder of the checkout, or of its root for "", in order."""
    found = (ROOT / folder).rglob(f"*{suffix}") if folder else ROOT.glob(f"*{suffix}")
    return sorted(path for path in found if not SPECIAL & set(path.relative_to(ROOT).parts))


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """Line numbers and texts that a person reads: comments, strings, documents, markdown cells."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type in READ:
                if KEY.fullmatch(token.string):
                    continue
                for offset, line in enumerate(token.string.splitlines()):
                    yield token.start[0] + offset, line
    elif path.suffix == ".ipynb":
        for cell in json.loads(text)["cells"]:
            yield from enumerate("".join(cell["source"]).splitlines(), 1)
    elif path != TERMS:
        yield from enumerate(text.splitlines(), 1)


def without_identifiers(line: str) -> str:
    """The line without what is code: fields of f-strings, dotted or snake_case names, and file names."""
    return re.sub(r"\{[^{}]*\}|[\w./-]*(?:_|\.(?=\w)|/)[\w./-]*", " ", line)


def offences(folder: str) -> list[str]:
    """Every avoided word in what a person reads of that folder, with file and line."""
    found = []
    for suffix in (".py", ".ipynb", ".md", ".js", ".cfg"):
        for path in files(folder, suffix):
            if path == Path(__file__):
                continue
            for number, line in prose(path):
                for match in AVOIDED.finditer(without_identifiers(line)):
                    found.append(f"{path.relative_to(ROOT)}:{number}: {match[0]!r} in {line.strip()[:90]}")
    return found


def is_participle(name: str) -> bool:
    """Whether a function's name is one participle alone."""
    word = name.strip("_")
    return "_" not in word and word not in VERBS and (bool(PARTICIPLE.match(word)) or word in IRREGULAR)


def misnamed(folder: str) -> list[str]:
    """Functions named by a participle, with their files; properties and fixtures are values."""
    found = []
    for path in files(folder, ".py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and is_participle(node.name) and node.name not in TRAITS:
                kinds = {
                    name.id for d in node.decorator_list for name in ast.walk(d) if isinstance(name, ast.Name)
                }
                kinds |= {d.attr for d in node.decorator_list if isinstance(d, ast.Attribute)}
                if not kinds & {"property", "cached_property", "pytest"}:
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno}: {node.name}")
    return found


@pytest.mark.parametrize("folder", ["", *FOLDERS.split()])
def test_what_a_person_reads_holds_no_word_that_readers_stumble_over(folder):
    assert not offences(folder)


@pytest.mark.parametrize("folder", FOLDERS.split()[:10])
def test_no_function_is_named_by_a_participle_alone(folder):
    assert not misnamed(folder)


def test_one_class_name_has_one_meaning():
    homes = defaultdict(list)
    for folder in FOLDERS.split()[:10]:
        for path in files(folder, ".py"):
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    homes[node.name].append(path.relative_to(ROOT).as_posix())
    assert not {name: where for name, where in homes.items() if len(where) > 1 and name not in REPEATED}


def test_no_class_is_named_by_a_metaphor():
    avoided = {word.replace(" ", "") for word in (row[0] for row in table("Names that are metaphors"))}
    for folder in FOLDERS.split()[:10]:
        for path in files(folder, ".py"):
            for node in ast.walk(ast.parse(path.read_text())):
                assert not (isinstance(node, ast.ClassDef) and node.name.lower() in avoided), (
                    path,
                    node.name,
                )


def test_the_test_finds_what_it_looks_for():
    assert AVOIDED.search("The file lies behind it") and not AVOIDED.search("the files, beside each other")
    assert is_participle("_told") and is_participle("joined")
    assert not is_participle("embed") and not is_participle("probed_frames")
    assert "is_no" not in without_identifiers("x.is_no behind") and "behind" in without_identifiers(
        "x.is_no behind"
    )


if __name__ == "__main__":
    for name in sys.argv[1:] or ["", *FOLDERS.split()]:
        print("\n".join([*offences(name), *misnamed(name)]))
