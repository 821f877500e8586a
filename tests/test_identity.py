"""A run is resumed only on what it was computed on: weights, code, inputs, settings, versions."""

import ast
import importlib
import json
import re
import sys
import textwrap
from dataclasses import asdict, replace
from pathlib import Path

import fake_run
import numpy as np
import pytest
import tiny
import torch
import xarray as xr
from test_films import counting, film

from framelens import models
from framelens.models.loading.weights import hash_weights
from framelens.probes.__main__ import main
from framelens.probes.run import folder as run_folder
from framelens.probes.run.identity import identity_of
from framelens.probes.run.settings import Settings
from framelens.records import identity
from framelens.records.identity import CodeFile, Identity, Input, compare, framelens_code
from framelens.reports.page.page import settings_section
from framelens.reports.runs import open_run

SMALL = "--clips 2 --steps 1 --frames 3 --context 1 --probed 1 --workers 1 --run one".split()
SMALL += "--experiments rollouts --statistics block_norms".split()


def content(folder: Path) -> dict[Path, tuple[bytes, int]]:
    return {
        path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()
    }


def manifest(folder: Path) -> dict:
    return json.loads((folder / "manifest.json").read_text())


def write_tiles(path: Path, seed: int = 0) -> Path:
    return tiny.checkpoint(path, tiny.model(seed, **tiny.TILES))


class Command:
    """`framelens probe` of one run in a folder: exit status, and its lines on stderr."""

    def __init__(self, out: Path, capsys, monkeypatch):
        self.out, self.capsys, self.monkeypatch = out, capsys, monkeypatch

    def __call__(self, model, *more, clips=None):
        """With `clips`, the process ends before it writes that clip."""
        write = run_folder.RunFolder.write_clip

        def stop_or_write(folder, clip, *rest):
            if clip == clips:
                raise KeyboardInterrupt
            write(folder, clip, *rest)

        with self.monkeypatch.context() as patch:
            patch.setattr(run_folder.RunFolder, "write_clip", stop_or_write)
            status = main(["--model", str(model), "--out", str(self.out), *SMALL, *map(str, more)])
        lines = self.capsys.readouterr().err.replace("\r", "\n").splitlines()
        return status, [line for line in lines if re.match("framelens probe: (?!stopped)", line)]

    def refuse(self, model, *more):
        """The one line with which the command is refused; nothing changes in the folder of all runs."""
        before = content(self.out)
        status, (line,) = self(model, *more)
        assert status == 2 and content(self.out) == before
        assert "--fresh" in line
        return line


@pytest.fixture
def command(tmp_path, capsys, monkeypatch):
    return Command(tmp_path / "runs", capsys, monkeypatch)


def change_film(path):
    return film(path, 255 - counting(12))


def change_latents(path):
    values = np.load(path)
    values[0, 0, 0, 0, 0] += 1
    np.save(path, values)


# Inputs


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["film", "latents"])
def test_a_stopped_run_is_not_resumed_on_another_file_of_the_same_name(command, tmp_path, kind):
    model = write_tiles(tmp_path / "tiny.safetensors")
    path = tmp_path / {"film": "film.mp4", "latents": "clips.npy"}[kind]
    if kind == "film":
        film(path, counting(12))
    else:
        np.save(path, tiny.draw(3, 3, 3, 20, 20).clamp(-1, 1).numpy())
    assert command(model, "--videos", path, clips=1)[0] == 130
    kept = path.read_bytes()
    (change_film if kind == "film" else change_latents)(path)
    line = command.refuse(model, "--videos", path)
    assert f"the {kind} {path.name} " in line and "bytes" in line and "--same-code" not in line
    path.write_bytes(kept)
    assert command(model, "--videos", path) == (0, [])
    run = command.out / "tiny" / "one"
    about = manifest(run)
    assert about["complete"] and about["identity"]["inputs"] == [
        {"kind": kind, "name": path.name, "bytes": len(kept), "sha256": Input.read(kind, path).sha256}
    ]
    places = [(window["file"], window["first_frame"], window["frame_rate"]) for window in about["windows"]]
    assert places == ([("film.mp4", first, 10.0) for first in (0, 6, 9)] if kind == "film" else [])
    change_latents(path) if kind == "latents" else change_film(path)
    command.refuse(model, "--videos", path)


def test_prompts_that_own_samples_follow_are_inputs(tmp_path):
    file = tmp_path / "prompts.safetensors"
    file.write_bytes(b"one")
    settings = Settings(videos=f"own:{file}")
    before = identity_of(tiny.model(), settings, [])
    file.write_bytes(b"two")
    found = compare(before, identity_of(tiny.model(), settings, []))
    assert found.numbers == ["the prompts prompts.safetensors has other bytes"]


# Weights and settings


@pytest.mark.slow
def test_weights_are_what_was_loaded_whatever_file_holds_them(command, tmp_path):
    path = write_tiles(tmp_path / "tiny.safetensors")
    assert command(path) == (0, [])
    write_tiles(path, seed=1)
    line = command.refuse(path)
    assert "the weights differ" in line and "--same-code" not in line
    for more, words in ((("--seed", "1"), "seed 0, not 1"), (("--context", "2"), "context 1, not 2")):
        write_tiles(path)
        assert words in command.refuse(path, *more)
    network = tiny.model(0, **tiny.TILES)
    tiny._checkpoint.write(path, network.state_dict(), tiny.metadata(network) | {"note": "saved again"})
    assert command(path) == (0, [])


def test_the_hash_of_weights_depends_on_every_byte_name_type_and_shape():
    network = tiny.model()
    network.register_buffer("extra", torch.zeros(3, 2))
    hashes = [hash_weights(network), hash_weights(tiny.model())]
    for name in ("extra", *dict(network.named_parameters())):
        tensor = dict([*network.named_parameters(), *network.named_buffers()])[name]
        kept = tensor.data.clone()
        tensor.data.view(-1)[-1] += 1e-3
        hashes.append(hash_weights(network))
        tensor.data = kept
    for changed in (torch.zeros(2, 3), torch.zeros(6), torch.zeros(3, 2).half(), torch.zeros(3, 2).int()):
        network.extra = changed
        hashes.append(hash_weights(network))
    network.extra = torch.zeros(2, 3).T
    assert hash_weights(network) == hashes[0] and len(set(hashes)) == len(hashes)
    network.extra = torch.zeros(0)
    assert hash_weights(network.bfloat16()) == hash_weights(network) != hashes[0]


def test_weights_without_values_are_noted(capsys):
    network = tiny.model()
    network.register_buffer("extra", torch.zeros(3, device="meta"))
    hash_weights(network)
    assert "extra" in capsys.readouterr().err


def test_a_loaded_model_says_the_hash_of_its_weights(tmp_path):
    path = write_tiles(tmp_path / "tiny.safetensors")
    model, shuffled = models.load(str(path)), models.load_shuffled(str(path), 0)
    assert model.source.weights == hash_weights(model) != shuffled.source.weights
    assert models.load(str(path), dtype="bfloat16").source.weights != model.source.weights


# Code of an adapter

ADAPTER = """
    from framelens.models.adapter_template import Adapter, Net

    from seeds_of_a_test import SEED, SCALE


    class Mine(Adapter):
        def denoise(self, x, sigma, context):
            import late_part_of_a_test  # when it is called

            return super().denoise(x, sigma, context) * SCALE


    def load():
        import torch

        torch.manual_seed(SEED)
        return Mine(Net())
"""


@pytest.fixture
def adapter(tmp_path, monkeypatch):
    """Writes an adapter and the modules that it imports, as a process that starts now reads them."""

    def write(scale="1.0", late="", comment="", seed="0"):
        for name in ("seeds_of_a_test", "late_part_of_a_test"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        (tmp_path / "mine.py").write_text(comment + textwrap.dedent(ADAPTER))
        (tmp_path / "seeds_of_a_test.py").write_text(f"SEED = {seed}\nSCALE = {scale}\n")
        (tmp_path / "late_part_of_a_test.py").write_text(late)
        return f"{tmp_path}/mine.py:load"

    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return write


def test_the_sources_of_an_adapter_are_its_file_and_what_it_imports(adapter):
    code = models.load(adapter()).source.code
    assert [file.name for file in code] == ["mine.py", "late_part_of_a_test.py", "seeds_of_a_test.py"]
    assert code == models.load(adapter()).source.code
    again = models.load(adapter(comment="'''A docstring.'''\n# a comment\n")).source.code
    assert again[1:] == code[1:] and again[0].text != code[0].text and again[0].code == code[0].code
    changed = models.load(adapter(late="X = 1\n")).source.code
    assert [new.name for new, old in zip(changed, code, strict=True) if new != old] == [code[1].name]


def test_packages_beside_an_adapter_are_its_sources_and_libraries_are_not(tmp_path, monkeypatch):
    package = tmp_path / "network_of_a_test"
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").write_text("from .inner import part\nimport torch, numpy\n")
    (package / "inner" / "__init__.py").write_text("from ..other import X\n")
    (package / "inner" / "part.py").write_text("import importlib\nimportlib.import_module('named_' + 'so')\n")
    (package / "other.py").write_text("X = 1\n")
    (package / "unused.py").write_text("def broken(:\n")
    (tmp_path / "named_so.py").write_text("")
    (tmp_path / "mine.py").write_text(
        "import network_of_a_test\nfrom framelens.models.adapter_template import load\n"
    )
    for name in list(sys.modules):
        if name.startswith("network_of_a_test"):
            monkeypatch.delitem(sys.modules, name)
    for _ in range(2):
        names = [file.name for file in models.load(f"{tmp_path}/mine.py:load").source.code]
        assert names == [
            "mine.py", "named_so.py", "network_of_a_test/__init__.py", "network_of_a_test/inner/__init__.py",
            "network_of_a_test/inner/part.py", "network_of_a_test/other.py",
        ]  # fmt: skip


def test_a_module_has_the_code_that_was_imported_until_it_is_reloaded(adapter, tmp_path):
    before = models.load(adapter()).source.code
    (tmp_path / "seeds_of_a_test.py").write_text("SEED = 0\nSCALE = 100.0\n")
    assert models.load(f"{tmp_path}/mine.py:load").source.code == before, "Python imports a module once"
    importlib.invalidate_caches()
    importlib.reload(sys.modules["seeds_of_a_test"])
    after = models.load(f"{tmp_path}/mine.py:load").source.code
    assert [new.name for new, old in zip(after, before, strict=True) if new != old] == ["seeds_of_a_test.py"]


@pytest.mark.slow
def test_a_changed_adapter_is_refused_or_resumed_by_what_changed(command, adapter):
    assert command(adapter(), clips=1)[0] == 130
    line = command.refuse(adapter(scale="100.0"))
    assert "seeds_of_a_test.py has other code" in line and "--same-code" in line and "weights" not in line
    line = command.refuse(adapter(seed="3"))
    assert "the weights differ" in line and "--same-code" not in line
    assert "the weights differ" in command.refuse(adapter(seed="3"), "--same-code")
    assert "late_part" in command.refuse(adapter(late="X = 1\n"))
    status, (note,) = command(adapter(comment="# a comment\n"), clips=1)
    assert status == 130 and "mine.py" in note and "comments" in note
    status, (note,) = command(adapter(late="X = 1\n"), "--same-code")
    assert status == 0 and "late_part_of_a_test.py has other code" in note
    assert "has other code" in command.refuse(adapter(scale="100.0")), "finished, yet of another network"


@pytest.mark.slow
def test_processes_that_load_different_weights_are_refused(command, tmp_path):
    (tmp_path / "mine.py").write_text(
        "import torch\nfrom framelens.models.adapter_template import Adapter, Net\n\n\n"
        "def load():\n    torch.seed()\n    return Adapter(Net())\n"
    )
    status, (line,) = command(f"{tmp_path}/mine.py:load", "--workers", "2")
    assert status == 2 and "the weights differ" in line and "seed" in line


# Versions


def with_manifest(folder: Path, change) -> None:
    values = manifest(folder)
    change(values)
    (folder / "manifest.json").write_text(json.dumps(values))


@pytest.mark.slow
@pytest.mark.parametrize("what", ["torch", "framelens"])
def test_a_stopped_run_of_another_version_is_refused_or_each_clip_says_which(command, tmp_path, what):
    def age(values):
        if what == "torch":
            values["versions"]["torch"] = "1.0.0"
        else:
            values["identity"]["framelens"] = "0.0.1+abc"

    model = write_tiles(tmp_path / "tiny.safetensors")
    assert command(model, clips=1)[0] == 130
    run = command.out / "tiny" / "one"
    with_manifest(run, age)
    line = command.refuse(model)
    assert what in line and ("1.0.0" if what == "torch" else "0.0.1+abc") in line and "--same-code" in line
    first = run / "clips" / "0000" / "samples.nc"
    with xr.load_dataset(first, engine="netcdf4") as stored:
        stored.assign_attrs(torch="1.0.0", framelens="0.0.1+abc").to_netcdf(first, engine="netcdf4")
    if (first.parent / "content.json").exists():
        sizes = {file.name: file.stat().st_size for file in first.parent.glob("*.nc")}
        (first.parent / "content.json").write_text(json.dumps(sizes))
    status, (note,) = command(model, "--same-code")
    assert status == 0 and what in note
    clips = [xr.load_dataset(run / "clips" / clip / "samples.nc").attrs for clip in ("0000", "0001")]
    assert [(clip["torch"], clip["framelens"]) for clip in clips] == [
        ("1.0.0", "0.0.1+abc"), (torch.__version__, framelens_code()),
    ]  # fmt: skip
    assert "torch" not in xr.load_dataset(run / "samples.nc").attrs
    assert [session["torch"] for session in manifest(run)["sessions"]] == [torch.__version__]
    with_manifest(run, age)
    before = content(run)
    status, (note,) = command(model)
    assert status == 0 and "finished" in note and what in note and content(run) == before


@pytest.mark.slow
def test_a_run_of_an_older_version_is_refused_in_one_line(command, tmp_path):
    model = write_tiles(tmp_path / "tiny.safetensors")
    assert command(model) == (0, [])
    with_manifest(command.out / "tiny" / "one", lambda values: values.update(identity=None))
    assert "older version" in command.refuse(model)
    (command.out / "tiny" / "one" / "manifest.json").unlink()
    assert "no manifest.json" in command.refuse(model)


# Fresh runs and empty ones


@pytest.mark.slow
def test_a_fresh_run_keeps_the_old_one_under_its_date(command, tmp_path):
    path = write_tiles(tmp_path / "tiny.safetensors")
    assert command(path) == (0, [])
    run = command.out / "tiny" / "one"
    created, old = manifest(run)["created"], content(run)
    write_tiles(path, seed=1)
    for name in ("", "-2"):
        status, (note,) = command(path, "--fresh")
        kept = run.with_name(f"one-{created[:19].replace(':', '-')}{name}")
        assert status == 0 and str(kept) in note and kept.is_dir()
        with_manifest(run, lambda values: values.update(created=created))
        if not name:
            assert {file.relative_to(kept): held for file, held in content(kept).items()} == {
                file.relative_to(run): held for file, held in old.items()
            }
    about = manifest(run)
    assert about["identity"]["weights"] == models.load(str(path)).source.weights
    assert "--fresh" not in about["command"], "the command that makes this run again"


@pytest.mark.slow
def test_a_run_that_failed_before_its_first_number_blocks_nothing(command, tmp_path):
    path = write_tiles(tmp_path / "tiny.safetensors")
    assert command(path, "--videos", "own", clips=0)[0] == 130
    run = command.out / "tiny" / "one"
    drawn = (run / "own.safetensors").stat().st_mtime_ns
    assert command(path, "--videos", "own", clips=0)[0] == 130
    assert (run / "own.safetensors").stat().st_mtime_ns == drawn, "the same model's samples are kept"
    write_tiles(path, seed=1)
    assert command(path, "--videos", "own", "--seed", "2") == (0, [])
    assert (run / "own.safetensors").stat().st_mtime_ns != drawn, "another model's samples are not"
    assert manifest(run)["complete"] and len(list(command.out.glob("tiny/*"))) == 1


# The page


def test_the_page_names_inputs_and_what_the_run_was_computed_on(tmp_path):
    run = fake_run.write(tmp_path / "fake", layers=2, steps=2, clips=2)
    film = {"kind": "film", "name": "a<b>.mp4", "bytes": 12345, "sha256": "f" * 64}
    identity = Identity("w" * 64, {}, (CodeFile("net.py", "t", "c" * 64),), (Input(**film),), "0.1.0+abc")
    places = [{"file": "a<b>.mp4", "first_frame": first, "frame_rate": 24.0} for first in (0, 12)]
    assert "What was computed on" not in "".join(settings_section(open_run(run)))
    with_manifest(run, lambda values: values.update(identity=asdict(identity), windows=places))
    text = "".join(settings_section(open_run(run)))
    assert text.count("What was computed on") == 1 and "<b>.mp4" not in text
    for part in ("w" * 64, "c" * 64, "0.1.0+abc", "12,345 bytes", "24.0 frames per second", "frame 0, 12"):
        assert part in text


# Comparing


def test_every_kind_of_difference_is_named_in_plain_words():
    def of(name, **changes):
        return replace(Input("film", name, 10, "a"), **changes)

    before = Identity("w", {"layers": 2}, (CodeFile("net.py", "t", "c"),), (of("a.mp4"), of("b.mp4")), "1")
    assert compare(before, before) == type(compare(before, before))([], [], [])
    now = Identity(
        "v", {"layers": 3}, (CodeFile("other.py", "t", "c"),),
        (of("a.mp4", sha256="b"), of("c.mp4")), "1",
    )  # fmt: skip
    found = compare(before, now)
    assert found.numbers == [
        "the weights differ", "another configuration: layers 2, not 3", "the film a.mp4 has other bytes",
        "the film c.mp4 was not read", "the film b.mp4 is not read now",
    ]  # fmt: skip
    assert found.code == ["other.py was not imported", "net.py is not imported now"]
    assert compare(before, replace(before, inputs=(of("a.mp4", bytes=9), of("b.mp4")))).numbers == [
        "the film a.mp4 had 10 bytes, now 9"
    ]
    assert compare(before, replace(before, code=(CodeFile("net.py", "u", "c"),))).texts == ["net.py"]


def test_only_what_runs_is_code(tmp_path):
    def code(text):
        (tmp_path / "a.py").write_text(text)
        return CodeFile.read(tmp_path / "a.py", "a.py").code

    plain = code("def f(x):\n    return x + 1\n")
    assert plain == code('"""About."""\n# note\ndef f(x):\n    """What."""\n\n    return (x + 1)\n')
    assert plain != code("def f(x):\n    return x + 2\n") and code("def (") != code("def ((")


def test_the_code_of_framelens_is_kept_and_another_text_is_read_anew(tmp_path, monkeypatch):
    def write(text):
        (tmp_path / "hooks").mkdir(exist_ok=True)
        (tmp_path / "hooks" / "a.py").write_text(text)

    monkeypatch.setattr(identity, "ROOT", tmp_path)
    monkeypatch.setattr(identity, "_kept_file", lambda: tmp_path / "kept.txt")
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    write("x = 1\n")
    first = framelens_code.__wrapped__()
    write("x = 1  # note\n")
    assert framelens_code.__wrapped__() == first
    write("x = 2\n")
    other = framelens_code.__wrapped__()
    assert other != first
    with monkeypatch.context() as patch:
        patch.setattr(ast, "parse", None)  # what is kept needs no parsing
        assert framelens_code.__wrapped__() == other
    for damage in ("", "a b c", (tmp_path / "kept.txt").read_text()[:-1]):
        (tmp_path / "kept.txt").write_text(damage)
        assert framelens_code.__wrapped__() == other
    (tmp_path / "kept.txt").unlink()
    (tmp_path / "kept.txt").mkdir()  # where nothing can be written
    assert framelens_code.__wrapped__() == other
