"""The clips of a run, measured one after the other or by several processes; each writes its results whole."""

import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import torch
import xarray as xr

import models
from models._null import shuffled
from probes import load, names
from probes._layers import Layers
from probes.run_folder import RunFolder
from probes.settings import Settings
from probes.subject import Clip, Subject, read_clips, recipe_of


@dataclass(frozen=True)
class Laboratory:
    """Networks and clips, ready to be measured."""

    networks: dict[str, Any]
    clips: list[Clip]
    settings: Settings
    frames: int

    def measure(self, index: int) -> dict[str, xr.Dataset]:
        """Every experiment's Datasets for one clip."""
        clip, other = self.clips[index], self.clips[index + 1]
        subject = Subject(index, self.networks, clip, other, self.settings, self.frames)
        datasets = {}
        for experiment in self.settings.experiments or names():
            datasets |= load(experiment).measure(subject)
        return datasets


def open_laboratory(name: str, settings: Settings) -> Laboratory:
    """The model of that name, its random twin and the clips; raises ValueError or FileNotFoundError."""
    model = models.load(name, settings.device, settings.dtype)
    settings.chosen_layers(len(Layers(model)))
    frames = settings.frames or recipe_of(model).get("frames")
    if frames is None:
        raise ValueError(
            f"{model.source.file} does not say how long its clips were; give --videos and --frames"
        )
    if frames <= settings.context:
        raise ValueError(f"clips of {frames} frames leave nothing to draw after --context {settings.context}")
    clips = read_clips(settings, model, frames)
    return Laboratory({"trained": model, "random": shuffled(model, settings.seed)}, clips, settings, frames)


def measured(
    laboratory: Laboratory, name: str, missing: list[int], folder: RunFolder, workers: int
) -> Iterator[int]:
    """Measures and writes the missing clips; yields each one's index when it is on disk."""
    workers = min(workers, len(missing))
    if workers > 1:
        yield from _by_processes(name, laboratory.settings, missing, folder, workers)
        return
    for index in missing:
        _measure(laboratory, folder, index)
        yield index


def default_workers(device: str) -> int:
    """One process per core on a CPU, where a small network cannot use several; one on a GPU."""
    return 1 if device.startswith("cuda") else max(1, len(os.sched_getaffinity(0)))


def _measure(laboratory: Laboratory, folder: RunFolder, index: int) -> None:
    began = time.perf_counter()
    datasets = laboratory.measure(index)
    folder.write_clip(index, datasets, time.perf_counter() - began)


def _by_processes(
    name: str, settings: Settings, missing: list[int], folder: RunFolder, workers: int
) -> Iterator[int]:
    # Spawned: a forked process cannot use the threads that torch has already started.
    context = get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_open_worker, initargs=(name, settings, folder))
    try:
        futures = {pool.submit(_work, index): index for index in missing}
        for future in as_completed(futures):
            future.result()
            yield futures[future]
    except BrokenProcessPool:
        raise OSError(
            f"one of {workers} worker processes died, killed or out of memory; the finished clips are kept: "
            "give the same command with fewer --workers"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


_worker: list[Any] = []


def _open_worker(name: str, settings: Settings, folder: RunFolder) -> None:
    torch.set_num_threads(1)
    _worker[:] = [open_laboratory(name, settings), folder]


def _work(index: int) -> None:
    laboratory, folder = _worker
    _measure(laboratory, folder, index)
