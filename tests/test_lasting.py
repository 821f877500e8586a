"""A killed command leaves no process and is resumed; a folder has one writer; a full disk is one line."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny
import xarray as xr
from same_numbers import differences

from framelens.probes.__main__ import main
from framelens.probes.latents.__main__ import main as make_latents
from framelens.records import write_json
from framelens.records.lock import hold_folder, remove_stale_files
from framelens.training.__main__ import main as train

ROOT = Path(__file__).parents[1]
ASKED = "--steps 2 --frames 4 --context 2 --probed 1 --experiments rollouts --statistics block_norms".split()
GONE = 2**22 + 1
"""No process has this number: it is above the largest of Linux."""


def start(code_or_module, *words, **options):
    """A Python process of its own group: code, or the module of a command with its words."""
    head = ["-m", code_or_module] if words else ["-c", code_or_module]
    environment = os.environ | {"PYTHONPATH": str(ROOT.parent)} | options.pop("env", {})
    return subprocess.Popen(
        [sys.executable, *head, *map(str, words)], cwd=options.pop("cwd", ROOT), env=environment, text=True,
        stdout=-1, stderr=-1, start_new_session=True, **options,
    )  # fmt: skip


def wait_for(holds, seconds=120):
    """Waits until that holds; fails if it never does."""
    stop = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < stop, "it did not happen in time"
        time.sleep(0.02)


UNCOMPILED = {"PYTHONDONTWRITEBYTECODE": "1"}
"""For processes on a full disk, where Python would keep half of what it compiled, for all that follow."""


def limit_files(size):
    """What a process calls first so that no file it writes can be larger, as on a full disk."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


# The lock of a folder


def test_a_second_writer_is_refused_in_one_line(tmp_path):
    folder = tmp_path / "runs" / "a"
    with hold_folder(folder), pytest.raises(ValueError) as error:
        with hold_folder(tmp_path / "runs" / "b" / ".." / "a", "--out gives another folder"):
            pytest.fail("two hold it")
    line = str(error.value)
    assert line.startswith(f"{folder} ") and f"process {os.getpid()}" in line and "\n" not in line
    assert line.endswith("--out gives another folder")
    with hold_folder(folder):
        folder.mkdir()
    assert list((tmp_path / "runs").iterdir()) == [folder], "the lock is gone with its holder"


def test_what_was_created_for_a_lock_alone_does_not_stay(tmp_path):
    with pytest.raises(OSError, match="nothing"), hold_folder(tmp_path / "new" / "models" / "a"):
        raise OSError("nothing was written")
    assert not list(tmp_path.iterdir())


def test_the_lock_of_a_killed_process_is_not_an_obstacle(tmp_path):
    folder = tmp_path / "a"
    code = f"""
import pathlib, time
from framelens.records.lock import hold_folder
with hold_folder(pathlib.Path({str(folder)!r})):
    print("held", flush=True)
    time.sleep(600)
"""
    holder = start(code)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match=f"process {holder.pid}:"), hold_folder(folder):
            pytest.fail("two hold it")
    finally:
        holder.kill()
        holder.communicate()
    assert (tmp_path / ".a.lock").exists()
    with hold_folder(folder):
        assert (tmp_path / ".a.lock").read_text() == str(os.getpid())


def test_a_lock_that_is_removed_while_it_is_taken_is_taken_again(tmp_path, monkeypatch):
    """Its holder ends between the opening of the file and the lock: a third process would find no file."""
    import fcntl

    lock, todo = fcntl.flock, [tmp_path / ".a.lock"]

    def remove_and_lock(descriptor, operation):
        if todo:
            todo.pop().unlink()
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", remove_and_lock)
    with hold_folder(tmp_path / "a"), pytest.raises(ValueError, match="process"), hold_folder(tmp_path / "a"):
        pytest.fail("two hold it")


def test_only_what_dead_processes_left_is_removed(tmp_path):
    names = [f".{GONE}.x.nc", f".{os.getpid()}.x.nc", f".{GONE}.y.nc", ".gitignore", ".12", "12.x.nc"]
    for name in names:
        (tmp_path / name).touch()
    remove_stale_files(tmp_path, "y.nc")
    assert {file.name for file in tmp_path.iterdir()} == set(names) - {f".{GONE}.y.nc"}
    remove_stale_files(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == set(names[3:]) | {names[1]}


# Files


def test_a_file_is_on_disk_before_its_name_changes(tmp_path, monkeypatch):
    """Else a power cut may leave the new name with no content."""
    done, sync, rename = [], os.fsync, os.replace

    def note_sync(descriptor):
        sync(descriptor)
        done.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)

    def note_rename(before, after):
        rename(before, after)
        done.append("renamed")

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "replace", note_rename)
    write_json(tmp_path / "a.json", {"a": 1})
    assert done == [f".{os.getpid()}.a.json", "renamed", tmp_path.name]


WRITERS = {
    "netcdf": "write_netcdf(path, xr.Dataset({'a': ('x', np.random.rand(9999))}))",
    "tensors": "write(path, {'a': torch.zeros(9999)}, {})",
    "latents": "latents.write(path, np.zeros((1, 1, 1, 99, 99), 'float32'))",
    "state": "replace_file(path, lambda partial: _save({'a': torch.zeros(9999)}, partial))",
    "film": "files.write(path, noise[None].transpose(0, 3, 1, 2) / 255.0 * 2 - 1)",
    "pdf": "replace_file(path, lambda partial: figure.savefig(partial, format='pdf'))",
    "table": "replace_file(path, lambda partial: pd.DataFrame(noise[0]).to_csv(partial))",
    "json": "write_json(path, {'a': 'b' * 9999})",
    "picture": "replace_file(path, lambda partial: Image.fromarray(noise).save(partial, 'png'))",
}


@pytest.mark.slow
def test_a_full_disk_is_one_error_of_the_system_that_names_the_file(tmp_path):
    """For every kind of file; the old one stays, and nothing else."""
    code = f"""
import pathlib, sys
import numpy as np, pandas as pd, torch, xarray as xr
from matplotlib.figure import Figure
from PIL import Image
from framelens.models.loading.checkpoint import write
from framelens.records import replace_file, write_json, write_netcdf
from framelens.training.state import _save
from framelens.videos import files, latents
noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)
figure = Figure()
figure.subplots().plot(noise[0])
for name, text in {WRITERS!r}.items():
    path = pathlib.Path({str(tmp_path)!r}) / f"{{name}}.{{'mp4' if name == 'film' else 'safetensors'}}"
    path.write_text("old")
    try:
        eval(text)
    except OSError as error:
        print(error)
"""
    process = start(code, preexec_fn=limit_files(2000), env=UNCOMPILED)
    out, complaint = process.communicate(timeout=120)
    assert process.returncode == 0, complaint
    lines = out.splitlines()
    assert len(lines) == len(WRITERS)
    for name, line in zip(WRITERS, lines, strict=True):
        (file,) = tmp_path.glob(f"{name}.*")
        assert "File too large; make room" in line and str(file) in line and file.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == len(WRITERS)


# Runs


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny.checkpoint(tmp_path_factory.mktemp("models") / "tiny.safetensors")


def arguments(checkpoint, out, clips, workers=1):
    counts = ["--clips", str(clips), "--workers", str(workers)]
    return ["--model", str(checkpoint), "--out", str(out), "--run", "a", *ASKED, *counts]


CLIPS = 12


FEW = 2
"""Clips of a run that nothing has to kill in time."""


@pytest.fixture(scope="module")
def whole(checkpoint, tmp_path_factory):
    """By number of clips, the folder of a run that nothing stopped."""
    folders = {}
    for clips in (FEW, CLIPS):
        out = tmp_path_factory.mktemp("whole")
        assert main(arguments(checkpoint, out, clips)) == 0
        folders[clips] = out / "tiny" / "a"
    return folders


def children(process):
    """The processes that a process has started and that run."""
    return Path(f"/proc/{process}/task/{process}/children").read_text().split()


def is_alive(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


MANY = 40
"""Clips of a run that is stopped and not resumed, so that it cannot end before."""


def started_with_workers(checkpoint, out, clips=CLIPS):
    """A command of two workers that has written its first clip, and the processes that it started."""
    process = start("framelens", "probe", *arguments(checkpoint, out, clips, workers=2))
    wait_for(lambda: list(out.glob("tiny/a/clips/[0-9]*")) or process.poll() is not None)
    assert process.poll() is None, process.communicate()
    return process, children(process.pid)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_command_leaves_no_process_and_is_resumed_at_once(checkpoint, whole, tmp_path, number):
    clips = CLIPS if number == signal.SIGKILL else MANY  # only the former is resumed, to the run that exists
    process, workers = started_with_workers(checkpoint, tmp_path, clips)
    process.send_signal(number)
    process.communicate(timeout=30)
    assert len(workers) >= 2 and process.returncode == -number
    wait_for(lambda: not any(map(is_alive, workers)), seconds=20)
    done = len(list(tmp_path.glob("tiny/a/clips/[0-9]*")))
    assert done < clips, "it was killed too late to say anything"
    if number != signal.SIGKILL:  # what is left is the same
        return
    (tmp_path / "tiny" / "a" / f".{GONE}.manifest.json").touch()
    assert main(arguments(checkpoint, tmp_path, CLIPS)) == 0
    folder = tmp_path / "tiny" / "a"
    assert list(differences(whole[CLIPS], folder)) == []
    assert not list(folder.rglob(".*")) and not list(folder.rglob("partial-*"))
    assert [file.name for file in folder.parent.iterdir()] == ["a"], "no lock is left"


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_ends_a_command_and_its_workers_in_one_line(checkpoint, tmp_path, times):
    process, workers = started_with_workers(checkpoint, tmp_path, MANY)
    for _ in range(times):  # the second while the command ends
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.05)
    _, complaint = process.communicate(timeout=30)
    lines = [line for line in complaint.replace("\r", "\n").splitlines() if line and "%|" not in line]
    assert process.returncode == 130
    assert lines == ["framelens probe: stopped; the same command goes on from here"]
    wait_for(lambda: not any(map(is_alive, workers)), seconds=20)


@pytest.mark.slow
def test_a_second_command_on_a_folder_is_refused_in_one_line(checkpoint, tmp_path, capsys):
    folder = tmp_path / "tiny" / "a"
    with hold_folder(folder):
        assert main(arguments(checkpoint, tmp_path, 1)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"framelens probe: {folder} is being written by process {os.getpid()}")
    assert "--run" in line
    assert not folder.exists()


@pytest.mark.slow
def test_trainings_and_files_of_latents_have_one_writer_too(tmp_path, capsys):
    out, file = tmp_path / "training", tmp_path / "x.safetensors"
    (tmp_path / "prompts.txt").write_text("a boat")
    prompts = ["--prompts", str(tmp_path / "prompts.txt"), "--text-encoder", "none"]
    with hold_folder(out), hold_folder(file):
        assert train(["--steps", "1", "--out", str(out)]) == 2
        assert make_latents([*prompts, "--out", str(file)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith(f"framelens train: {out} ") and "--out" in lines[0]
    assert lines[1].startswith(f"framelens latents: {file} ") and "--out" in lines[1]
    assert [path.name for path in tmp_path.iterdir()] == ["prompts.txt"]


def lose(path):
    path.unlink()


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-9])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "damage", "complete"),
    [
        ("samples.nc", lose, True),
        ("samples.nc", cut_short, False),
        ("content.json", lose, False),
        ("content.json", cut_short, True),
    ],
)
def test_a_clip_that_lost_a_file_is_measured_again(checkpoint, tmp_path, name, damage, complete):
    asked = arguments(checkpoint, tmp_path / "one", 2)
    assert main(asked) == 0
    shutil.copytree(tmp_path / "one" / "tiny" / "a", tmp_path / "two" / "tiny" / "a")
    folder = tmp_path / "two" / "tiny" / "a"
    if not complete:
        about = json.loads((folder / "manifest.json").read_text())
        write_json(folder / "manifest.json", about | {"complete": False, "sessions": []})
    damage(folder / "clips" / "0000" / name)
    before = (folder / "clips" / "0001").stat().st_ino
    assert main(arguments(checkpoint, tmp_path / "two", 2)) == 0
    assert list(differences(tmp_path / "one", tmp_path / "two")) == []
    assert (folder / "clips" / "0001").stat().st_ino == before, "the other clip is kept"
    about = json.loads((folder / "manifest.json").read_text())
    assert about["complete"] and about["sessions"][-1]["clips"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("as_large", [b"\0", b"\xff"])
def test_a_damaged_file_of_a_clip_is_named_with_what_to_do(checkpoint, tmp_path, capsys, as_large):
    asked = arguments(checkpoint, tmp_path, 2)
    assert main(asked) == 0
    folder = tmp_path / "tiny" / "a"
    file, about = folder / "clips" / "0001" / "samples.nc", json.loads((folder / "manifest.json").read_text())
    write_json(folder / "manifest.json", about | {"complete": False})
    file.write_bytes(as_large * file.stat().st_size)
    capsys.readouterr()
    assert main(asked) == 2
    line = capsys.readouterr().err.replace("\r", "\n").splitlines()[-1]
    assert line.startswith(f"framelens probe: {file} ") and f"delete {file.parent} " in line
    shutil.rmtree(file.parent)
    assert main(asked) == 0
    assert xr.load_dataset(folder / "samples.nc").sizes["clip"] == 2


@pytest.mark.slow
@pytest.mark.parametrize(("size", "workers"), [(100, 1), (6000, 2)])
def test_a_full_disk_is_one_line_and_given_room_the_run_is_completed(
    checkpoint, whole, tmp_path, size, workers
):
    words = arguments(checkpoint, tmp_path, FEW, workers)
    process = start("framelens", "probe", *words, preexec_fn=limit_files(size), env=UNCOMPILED)
    _, complaint = process.communicate(timeout=120)
    lines = [line for line in complaint.replace("\r", "\n").splitlines() if line and "%|" not in line]
    assert process.returncode == 2 and len(lines) == 1, complaint
    assert lines[0].startswith("framelens probe: ") and "File too large; make room" in lines[0]
    assert main(arguments(checkpoint, tmp_path, FEW)) == 0
    assert list(differences(whole[FEW], tmp_path / "tiny" / "a")) == []
