"""What is measured: rollouts, attention statistics, probed clips, their memory and their files.

    found = measure_growth(Sizes(), repeats=6, memory=True)       # -> list of Growth

All runs of all sweeps take turns, so that a slow moment of the machine is shared by all.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from framelens.benchmarks import measure
from framelens.benchmarks.growth.slopes import Growth
from framelens.benchmarks.overhead.__main__ import ALL, PLAIN, Arms, arm_peak_bytes
from framelens.benchmarks.overhead.card import HEADS, WIDTH, Rollout
from framelens.benchmarks.overhead.clip import random_clip
from framelens.hooks.attention import Pattern
from framelens.models import dense
from framelens.probes import experiments
from framelens.probes.run.settings import Settings
from framelens.records import write_netcdf

QUERIES = 64
"""Queries whose attention is read, as `framelens probe` does."""
EXPECTED = {
    "tokens": "1 to 2: linear layers to attention",
    "layers": "1",
    "steps": "below 1: the past is encoded once",
    "history": "below 1: attention and encoding alone see it",
}
"""Slopes of a rollout's time."""


@dataclass(frozen=True)
class Sizes:
    """The rollout that each sweep starts from, and the values of each sweep."""

    rollout: Rollout = Rollout(64, 3, 8, "cpu", 0, layers=4)
    tokens: tuple[int, ...] = (64, 144, 256, 576)
    layers: tuple[int, ...] = (2, 4, 8)
    steps: tuple[int, ...] = (8, 16, 32, 64)
    history: tuple[int, ...] = (1, 2, 4, 8)
    keys: tuple[int, ...] = (2048, 4096, 8192, 16384)
    clips: tuple[int, ...] = (1, 2, 4)

    def rollouts(self, varied: str) -> dict[int, Rollout]:
        """The rollouts of a sweep by value."""
        field, more = ("frames", 1) if varied == "history" else (varied, 0)
        return {v: replace(self.rollout, **{field: v + more}) for v in getattr(self, varied)}


@dataclass(frozen=True)
class TimedSweep:
    """The runs of one sweep by value, and the slope that is expected of their times."""

    cost: str
    against: str
    expected: str
    runs: Mapping[int, Callable[[], object]]


def measure_growth(sizes: Sizes, repeats: int, memory: bool, seed: int = 0) -> list[Growth]:
    """Times of all sweeps, then memory and files."""
    timed = _timed_sweeps(sizes)
    runs = {(place, v): run for place, sweep in enumerate(timed) for v, run in sweep.runs.items()}
    taken = measure.interleave(runs, repeats, "cpu", seed)
    found = [
        Growth(
            sweep.cost, "s", sweep.against, list(sweep.runs),
            [taken[place, value].cpu_seconds for value in sweep.runs], sweep.expected,
        )
        for place, sweep in enumerate(timed)
    ]  # fmt: skip
    return [*found, *(_memory(sizes) if memory else []), _file_bytes(sizes)]


def _timed_sweeps(sizes: Sizes) -> list[TimedSweep]:
    sweeps = []
    for varied, expected in EXPECTED.items():
        arms = {value: Arms(setting) for value, setting in sizes.rollouts(varied).items()}
        for name, cost in ((PLAIN, "time of a plain rollout"), (ALL, "time of a probed rollout")):
            runs = {value: partial(each.run, name) for value, each in arms.items()}
            sweeps.append(TimedSweep(cost, varied, expected, runs))
    reads = {keys: partial(_read, _pattern(keys)) for keys in sizes.keys}
    sweeps.append(TimedSweep("time of attention statistics", "keys", "1", reads))
    clips = {count: partial(probe_clips, sizes.rollout, count) for count in sizes.clips}
    return [*sweeps, TimedSweep("time of a probe", "clips", "1", clips)]


def _pattern(keys: int) -> Pattern:
    """The attention of a frame's queries over that many keys."""
    draws, head = torch.Generator().manual_seed(0), WIDTH // HEADS
    q = torch.randn(1, HEADS, QUERIES, head, generator=draws)
    k = torch.randn(1, HEADS, keys, head, generator=draws)
    return Pattern(q, k, key_age=torch.arange(keys).flip(0) // QUERIES)


def _read(pattern: Pattern) -> None:
    pattern.statistics()


@torch.no_grad()
def probe_clips(setting: Rollout, count: int, out: Path | None = None) -> None:
    """Probes that many clips of a random network one after the other; writes their datasets into `out`."""
    config = dense.config("tiny", layers=2, height=8, width=8)
    about = Settings(
        clips=count, frames=setting.frames, context=setting.frames - 1, probed=1, steps=setting.steps,
        experiments=("rollouts",),
    )  # fmt: skip
    probed = random_clip(config, about)
    for index in range(count):
        datasets = experiments.load("rollouts").measure(replace(probed, index=index))
        if out is not None:
            for name, dataset in datasets.items():
                write_netcdf(out / f"clip_{index}" / f"{name}.nc", dataset)


def _memory(sizes: Sizes) -> list[Growth]:
    """Peak memory of a probed rollout against steps, and of a probe against clips."""
    steps = {value: [_peak(_rollout_peak, each)] for value, each in sizes.rollouts("steps").items()}
    clips = {count: [_peak(_clips_peak, sizes.rollout, count)] for count in sizes.clips}
    return [
        Growth("peak memory of a probed rollout", "B", "steps", list(steps), list(steps.values()), "near 0"),
        Growth("peak memory of a probe", "B", "clips", list(clips), list(clips.values()), "0"),
    ]


def _peak(function: Callable[..., int], *arguments: object) -> int:
    return measure.alone(function, *arguments)


def _rollout_peak(setting: Rollout) -> int:
    return arm_peak_bytes(setting, ALL, 1)


def _clips_peak(setting: Rollout, count: int) -> int:
    torch.set_num_threads(1)
    probe_clips(setting, 1)  # what a first call allocates belongs to no clip
    return measure.peak_bytes(partial(probe_clips, setting, count), "cpu")


def _file_bytes(sizes: Sizes) -> Growth:
    """Bytes of the files of a clip, against the number of clips of the run."""
    each = []
    for count in sizes.clips:
        with TemporaryDirectory() as folder:
            probe_clips(sizes.rollout, count, Path(folder))
            each.append([sum(path.stat().st_size for path in Path(folder).rglob("*.nc")) / count])
    return Growth("bytes of files for a clip", "B", "clips", sizes.clips, each, "0")
