"""Several processes share out the clips of a run: the same bytes as by one, and none is lost in silence."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny
import xarray as xr
from same_numbers import differences

from framelens.models.loading import ranks as _ranks
from framelens.models.loading.ranks import Ranks, join_ranks
from framelens.probes.__main__ import main

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
ASKED = "--steps 2 --frames 4 --context 2 --probed 1 --experiments rollouts --statistics block_norms".split()
CLIPS = 24
"""Of a run one of whose processes is killed: enough that clips are left then."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny.checkpoint(tmp_path_factory.mktemp("models") / "tiny.safetensors")


def arguments(checkpoint, out, clips):
    return ["--model", str(checkpoint), "--out", str(out), "--run", "a", *ASKED, "--clips", str(clips)]


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def rank(number, port, words):
    """One of two processes, as launchers start them."""
    told = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1"}
    environment = os.environ | {name: str(value) for name, value in (told | {"MASTER_PORT": port}).items()}
    command = [sys.executable, "-m", "framelens.probes", *words]
    return subprocess.Popen(command, cwd=ROOT, env=environment, text=True, stdout=-1, stderr=-1)


def test_two_launched_processes_write_the_same_numbers_as_one(checkpoint, tmp_path, capsys):
    assert main([*arguments(checkpoint, tmp_path / "one", 3), "--workers", "1"]) == 0
    launch = "--multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no --dynamo_backend no"
    launch += f" --main_process_port {free_port()} -m framelens.probes"
    words = [sys.executable, "-m", "accelerate.commands.launch", *launch.split()]
    done = subprocess.run(
        [*words, *arguments(checkpoint, tmp_path / "two", 3)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    one, two = (tmp_path / name / "tiny" / "a" for name in ("one", "two"))
    assert done.stdout.strip() == str(two), "one process alone says where the results are"
    files = sorted(file.name for file in one.glob("*.nc"))
    assert files == ["block_norms.nc", "samples.nc"] and sorted(f.name for f in two.glob("*.nc")) == files
    assert list(differences(one, two)) == []
    for name in files:
        first, second = (xr.load_dataset(folder / name, engine="netcdf4").attrs for folder in (one, two))
        commands = first.pop("command"), second.pop("command")
        assert (
            first == second and str(tmp_path / "one") in commands[0] and str(tmp_path / "two") in commands[1]
        )
    about = json.loads((two / "manifest.json").read_text())
    assert about["complete"] is True and [s["clips"] for s in about["sessions"]] == [3]


def test_a_killed_process_loses_its_clip_and_the_others_say_so(checkpoint, tmp_path):
    words, port, folder = arguments(checkpoint, tmp_path, CLIPS), free_port(), tmp_path / "tiny" / "a"
    ranks = [rank(number, port, words) for number in (0, 1)]
    try:
        stop = time.monotonic() + 60
        while not list(folder.glob("clips/[0-9]*[13579]")) and time.monotonic() < stop:
            time.sleep(0.02)
        ranks[1].send_signal(signal.SIGKILL)
        out, complaint = ranks[0].communicate(timeout=60)
    finally:
        for process in ranks:
            process.kill()
            process.communicate()
    assert ranks[0].returncode == 2 and not out
    assert complaint.strip().splitlines()[-1] == f"framelens probe: {_ranks.DIED.format(size=2)}"
    assert json.loads((folder / "manifest.json").read_text())["complete"] is False
    assert not list(folder.glob("*.nc"))
    finished = {file.name for file in folder.glob("clips/[0-9]*")}
    assert {f"{clip:04d}" for clip in range(0, CLIPS, 2)} <= finished, "the survivor finishes its share"
    assert CLIPS / 2 < len(finished) < CLIPS, "what the other one finished is kept"


def test_one_process_alone_meets_nobody(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    alone = join_ranks("cuda:7")
    assert alone == Ranks(0, 1) and alone.is_first and alone.broadcast([1, 2]) == [1, 2]
    alone.wait(lambda: pytest.fail("no one is to wait for"))


def test_processes_do_not_share_one_named_device(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for device in ("cuda:1", "auto"):
        with pytest.raises(ValueError, match=rf"2 .*--device {device}"):
            join_ranks(device)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(ValueError, match=r"\b2 .*\b1\b"):
        join_ranks("cuda")
