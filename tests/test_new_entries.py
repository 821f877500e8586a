"""A new experiment or statistic is one new file: estimate, benchmark and probe know it by themselves."""

import importlib
import shutil
import sys
from pathlib import Path

import counted
import pytest
import test_costs

from framelens.__main__ import main
from framelens.analyses import statistics
from framelens.benchmarks.overhead.__main__ import arms_of, card
from framelens.benchmarks.overhead.__main__ import main as overhead_main
from framelens.benchmarks.overhead.card import Rollout
from framelens.probes import experiments
from framelens.probes.estimate.memory import room
from framelens.probes.estimate.work import evaluations
from framelens.records.registry import Registry

NAME = "newcomer"
EXPERIMENT = """
import xarray as xr
from framelens.probes.run.costs import ChunkUse, Evaluations


def measure(clip):
    chunk = clip.chunk_probe()
    for sigma in (1.0, 0.5):
        chunk.velocity(chunk.noise, sigma)
    return {"newcomer": xr.Dataset({"psnr": ("clip", [0.0])})}
"""
COSTS = """

def evaluations(run):
    return Evaluations(4 * run.layers, chunk=ChunkUse(velocities=False))


def kept_bytes(run):
    return 10**12
"""
STATISTIC = """
import xarray as xr

from framelens.analyses.cost import StatisticCost

reads = ("*hook_embed",)


class Statistic:
    def __init__(self):
        self.sums = []

    def add(self, at, name, value):
        self.sums.append(value.sum(dim=(1, 2)))

    def result(self):
        return xr.Dataset({"sum": ("clip", [float(sum(self.sums).sum())])})
"""
COST = """
    def cost(self, shape):
        values = shape.steps * shape.frames
        return StatisticCost(0, values * shape.tokens * shape.width, shape.value_bytes * values)
"""


@pytest.fixture
def add(tmp_path, monkeypatch):
    """Adds a file to the folder of a registry, which is then a copy, for the length of a test."""
    before = set(sys.modules)

    def put(package, text):
        folder = tmp_path / package.__name__
        shutil.copytree(Path(package.__file__).parent, folder)
        (folder / f"{NAME}.py").write_text(text)
        folders[package.__name__] = folder
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
        importlib.invalidate_caches()

    folders, own = {}, Registry._folder.fget
    monkeypatch.setattr(
        Registry, "_folder", property(lambda self: folders.get(self.package) or own(self)), raising=True
    )
    yield put
    for package in (experiments, statistics):
        if hasattr(package, NAME):
            delattr(package, NAME)
    for module in set(sys.modules) - before:
        if module.endswith(f".{NAME}"):
            del sys.modules[module]


def test_a_new_experiment_is_estimated_and_measured(add, capsys):
    add(experiments, EXPERIMENT + COSTS)
    with counted.few():
        counts = test_costs.assert_claim_is_what_is_run(NAME, counted.dense(), counted.settings())
    assert counts["denoising"] > 0
    _, run = counted.probed(counted.dense(), counted.settings(experiments=(NAME,)))
    assert evaluations(run)[NAME] == 4 * run.layers
    assert room(run)[f"largest experiment beside them: {NAME}"] > 10**12
    assert main(["estimate", "--preset", "wan-1.3b"]) == 0
    assert any(line.endswith(f"  {NAME}") for line in capsys.readouterr().out.splitlines())


def test_a_claim_that_is_wrong_is_noticed(add):
    add(experiments, EXPERIMENT + COSTS.replace("4 *", "3 *"))
    with counted.few(), pytest.raises(AssertionError):
        test_costs.assert_claim_is_what_is_run(NAME, counted.dense(), counted.settings())


def test_an_experiment_without_a_claim_is_refused_in_one_line(add, capsys):
    add(experiments, EXPERIMENT)
    assert main(["estimate", "--preset", "wan-1.3b"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and NAME in said and "evaluations(run)" in said


def test_a_new_statistic_is_estimated_and_benchmarked(add):
    def held(names):
        _, run = counted.probed(
            counted.dense(), counted.settings(experiments=("rollouts",), statistics=names)
        )
        return room(run)["largest experiment beside them: rollouts"]

    without = held(("block_norms",))
    add(statistics, STATISTIC + COST)
    test_costs.test_a_statistic_keeps_and_computes_what_it_says(NAME, "all tokens", "few tokens")
    assert held(("block_norms", NAME)) - without == 4 * 3 * 2  # of 3 steps at 2 frames
    setting = Rollout(4, 3, 2, "cpu", 0, layers=1)
    assert NAME in arms_of(setting) and card(setting)[NAME]["kept_bytes"] == 4 * 2


def test_a_statistic_without_a_claim_is_refused_in_one_line(add, capsys):
    add(statistics, STATISTIC)
    small = ["--tokens", "4", "--frames", "2", "--steps", "2", "--no-memory"]
    for command, arguments in ((main, ["estimate", "--preset", "wan-1.3b"]), (overhead_main, small)):
        assert command(arguments) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and NAME in said and "cost(shape)" in said
