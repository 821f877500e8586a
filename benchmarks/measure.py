"""Time and peak memory of several arms, measured so that the arms can be compared.

    taken = interleave({"plain": plain, "watched": watched}, repeats=5, device="cpu", seed=0)
    taken["watched"].over(taken["plain"])            # ratios, round by round
    alone(peak_bytes, run, "cpu")                    # of one arm, in a process of its own

Nothing here knows what the arms do.
"""

import gc
import math
import os
import random
import statistics
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from framelens.models.cost.calibration import synchronise

Arm = Callable[[], Any]
Name = TypeVar("Name", bound=Hashable)

# glibc raises its threshold for giving memory back as a program runs, after which freed blocks count as
# used; a fixed threshold keeps the peak that of the arm.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}
PROCESS = Path("/proc/self")
LEAST = 6
"""Rounds from which on an interval of their median can hold it with 95 %."""


@dataclass
class Taken:
    """Seconds of each round of one arm: on the wall, and of all threads of the process."""

    wall_seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)

    def over(self, other: "Taken") -> dict[str, list[float]]:
        """Ratios to another arm, each within one round, so that slow drifts of the machine cancel."""
        return {
            "wall_seconds": _ratios(self.wall_seconds, other.wall_seconds),
            "cpu_seconds": _ratios(self.cpu_seconds, other.cpu_seconds),
        }


def _ratios(mine: list[float], theirs: list[float]) -> list[float]:
    return [a / b for a, b in zip(mine, theirs, strict=True)]


def interleave(
    arms: Mapping[Name, Arm],
    repeats: int,
    device: str,
    seed: int,
    before: Mapping[Name, Arm] = MappingProxyType({}),
) -> dict[Name, Taken]:
    """Every arm once to warm up, then `repeats` rounds of all arms, each round in a random order.

    `before` holds what some arms need done before each of their runs, off the clock.
    """
    order, taken = random.Random(seed), {name: Taken() for name in arms}
    for name, run in arms.items():
        before.get(name, _nothing)()
        run()
    for _ in range(repeats):
        for name in order.sample(list(arms), len(arms)):
            before.get(name, _nothing)()
            synchronise(device)
            began, worked = time.perf_counter(), time.process_time()
            arms[name]()
            synchronise(device)
            taken[name].wall_seconds.append(time.perf_counter() - began)
            taken[name].cpu_seconds.append(time.process_time() - worked)
    return taken


def _nothing() -> None:
    pass


def spread(values: list[float]) -> dict[str, float]:
    """Median, smallest and largest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def median_interval(values: list[float]) -> tuple[float, float]:
    """An interval that holds the median with at least 95 %, by order statistics.

    Of fewer than LEAST values the smallest and the largest, which hold it with less.
    """
    ordered, count, tail, outside = sorted(values), len(values), 0.0, 0
    while (tail := tail + math.comb(count, outside) / 2**count) <= 0.025:
        outside += 1
    outside = max(0, outside - 1)
    return ordered[outside], ordered[count - 1 - outside]


def median_of(values: list[float]) -> dict[str, Any]:
    """The median and its interval, for a JSON file."""
    return {"median": statistics.median(values), "interval": median_interval(values)}


def can_measure_memory(device: str) -> bool:
    """Whether this system tells the peak memory of the device."""
    return device.startswith("cuda") or PROCESS.exists()


def peak_bytes(run: Arm, device: str) -> int:
    """The most memory held during `run` above what was held before it.

    On a GPU what torch allocated there; on a CPU the resident memory of the process, whose peak so far must
    not exceed that of `run`: call it by `alone`.
    """
    gc.collect()
    if device.startswith("cuda"):
        import torch

        synchronise(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        synchronise(device)
        return torch.cuda.max_memory_allocated(device) - before
    before = _status_bytes("VmRSS")
    run()
    return _status_bytes("VmHWM") - before


def alone(function: Callable, *arguments: Any) -> Any:
    """The value of `function(*arguments)` computed in a fresh process with a steady allocator."""
    with _environment(ALLOCATOR), ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _status_bytes(name: str) -> int:
    """A line of /proc/self/status, which counts in KiB."""
    lines = (PROCESS / "status").read_text().splitlines()
    line = next(line for line in lines if line.startswith(f"{name}:"))
    return 1024 * int(line.split()[1])
