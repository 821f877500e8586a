"""Files that are damaged, of another kind, or made to exhaust a machine are refused at once, in one line."""

import ast
import io
import os
import tempfile
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import save_file

from framelens import models
from framelens.models.loading.files import read_file
from framelens.models.loading.memory import require_memory
from framelens.records import read_json_object
from framelens.videos import latents

ROOT = Path(__file__).parents[1]
VIDEO = np.zeros((2, 3, 4, 4, 4), np.float32)


def refuse(call, path: Path, *rest) -> str:
    """The one line that refuses the file; little memory is used for it."""
    tracemalloc.start()
    try:
        with pytest.raises((ValueError, OSError)) as error:
            call(path, *rest)
        assert tracemalloc.get_traced_memory()[1] < 100_000_000
    finally:
        tracemalloc.stop()
    line = str(error.value)
    assert str(path) in line and "\n" not in line
    return line


def header(shape: tuple[int, ...]) -> bytes:
    """The header of an .npy file with that shape."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return file.getvalue()


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
@pytest.mark.parametrize("suffix", [".npz", ".npy", ".pt", ".safetensors"])
def test_latents_cut_off_are_named(tmp_path, suffix, share):
    path = tmp_path / f"a{suffix}"
    {
        ".npz": lambda: np.savez_compressed(path, latents=np.random.default_rng(0).normal(size=VIDEO.shape)),
        ".npy": lambda: np.save(path, VIDEO),
        ".pt": lambda: torch.save(torch.from_numpy(VIDEO), path),
        ".safetensors": lambda: save_file({"latents": torch.from_numpy(VIDEO)}, path),
    }[suffix]()
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    refuse(latents.read, path)


@pytest.mark.parametrize("shape", [(10**9, 2, 1, 2, 2), (10**14,), (1 << 62, 1 << 62)])
def test_an_array_that_declares_more_than_it_holds_is_refused(tmp_path, shape):
    alone, member = tmp_path / "a.npy", tmp_path / "a.npz"
    alone.write_bytes(header(shape) + bytes(64))
    with zipfile.ZipFile(member, "w") as archive:
        archive.writestr("latents.npy", header(shape) + bytes(64))
    assert "declares" in refuse(latents.read, alone)
    assert "declares" in refuse(latents.read, member)


def test_a_header_without_end_is_refused(tmp_path):
    path = tmp_path / "a.npy"
    path.write_bytes(b"\x93NUMPY\x02\x00" + (200_000).to_bytes(4, "little") + b"(" * 200_000)
    refuse(latents.read, path)


def test_an_archive_that_expands_far_beyond_its_size_is_refused(tmp_path):
    path, kilo = tmp_path / "a.npz", bytes(1 << 20)
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("latents.npy", "w") as file,
    ):
        file.write(header((200 * (1 << 18),)))
        for _ in range(200):
            file.write(kilo)
    assert path.stat().st_size < 1_000_000
    assert "0.2 GB" in refuse(latents.read, path)


def test_a_view_that_declares_more_than_the_machine_holds_is_refused(tmp_path):
    path = tmp_path / "a.pt"
    torch.save(torch.zeros(1).expand(10**6, 10**3, 10**2, 10, 10), path)
    assert "GB" in refuse(latents.read, path)


def test_compressed_entries_are_no_file_of_torch(tmp_path):
    plain, packed = tmp_path / "a.pt", tmp_path / "b.pt"
    torch.save({"x": torch.zeros(1000)}, plain)
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    assert "compressed" in refuse(read_file, packed)
    assert "compressed" in refuse(latents.read, packed)


def cyclic(kind: str) -> object:
    """Something that contains itself, or lists nested without end."""
    held: dict = {}
    if kind == "dict":
        held["model"] = held
    elif kind == "all nests":
        held |= dict.fromkeys(("generator_ema", "generator", "state_dict", "ema", "model", "shadow"), held)
    elif kind == "latents":
        held["latents"] = held
    else:
        doubled: list = [0.0]
        for _ in range(60):
            doubled = [doubled, doubled]
        held["latents"] = doubled
    return held


@pytest.mark.parametrize("kind", ["dict", "all nests", "latents", "doubled lists"])
def test_what_contains_itself_is_refused(tmp_path, kind):
    path = tmp_path / "a.pt"
    torch.save(cyclic(kind), path)
    refuse(read_file, path)
    refuse(latents.read, path)


def test_json_that_is_nested_too_deep_is_refused(tmp_path):
    path, deep = tmp_path / "a.json", "[" * 200_000 + "]" * 200_000
    path.write_text(deep)
    refuse(read_json_object, path)
    weights = tmp_path / "a.safetensors"
    for metadata in (deep, "[]", "3", "{"):
        save_file({"x": torch.zeros(1)}, weights, metadata={"framelens": metadata})
        refuse(read_file, weights)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".bin"])
@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", "Git LFS"),
        (b"GGUF\x03\0\0\0" + bytes(100), "GGUF"),
        (b"<!DOCTYPE html><html></html>", "web page"),
        (b"", "empty"),
    ],
)
def test_another_kind_of_file_is_known_by_how_it_begins(tmp_path, suffix, content, kind):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    assert kind in refuse(lambda path: models.load(str(path)), path)
    assert kind in refuse(lambda path: require_memory("a", [path], "cpu", "float32"), path)
    if suffix != ".bin":
        assert kind in refuse(latents.read, path)


@pytest.mark.skipif(not hasattr(os, "seteuid") or os.getuid() != 0, reason="takes root's rights away")
def test_a_file_that_may_not_be_read_is_not_called_missing():
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        path = Path(folder) / "a.safetensors"
        save_file({"x": torch.zeros(1)}, path)
        path.chmod(0)
        os.seteuid(65534)
        try:
            for call in (read_file, latents.read, lambda path: models.load(str(path))):
                assert "permission" in refuse(call, path)
        finally:
            os.seteuid(0)


def test_a_folder_is_not_taken_for_a_file(tmp_path):
    path = tmp_path / "a.safetensors"
    path.mkdir()
    assert "folder" in refuse(latents.read, path)


def test_every_loader_of_another_projects_files_runs_no_code_of_theirs():
    found = []
    for file in sorted(ROOT.rglob("*.py")):
        if {".venv", "tests"} & set(file.relative_to(ROOT).parts):
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".from_pretrained"):
                values = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                found.append((file.name, node.lineno, values.get("trust_remote_code")))
    assert found and all(value == "False" for *_, value in found), found


def test_honest_files_are_still_read(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, latents=np.ones((2, 3, 4, 4, 4), np.float32), text=np.zeros((2, 512, 64), "f4"))
    assert latents.read(path).text is not None
    torch.save({"model": tiny.model().state_dict()}, tmp_path / "a.pt")
    assert read_file(tmp_path / "a.pt").weights
