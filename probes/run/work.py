"""The clips of a run, measured one after the other or by several processes; each writes its results whole."""

import os
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import cached_property
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import xarray as xr

from framelens import models
from framelens.diffusion.contract import CausalDiffuser
from framelens.models.loading.devices import AUTO, first_device
from framelens.models.loading.memory import require_room_for_clips
from framelens.models.loading.multi_device import is_spread
from framelens.models.loading.shuffled import copy_shuffled
from framelens.probes import experiments
from framelens.probes.chunk.layers import Layers
from framelens.probes.run.clips import check_own, frames_of, is_own, own_clips, read_clips
from framelens.probes.run.costs import claim_of
from framelens.probes.run.failures import in_one_line
from framelens.probes.run.folder import RunFolder
from framelens.probes.run.identity import identity_of
from framelens.probes.run.pairing import control_of, film_coords
from framelens.probes.run.probed_clip import Clip, ProbedClip
from framelens.probes.run.progress import ClipProgress
from framelens.probes.run.resume import require_unchanged
from framelens.probes.run.settings import NETWORKS, OWN_FILE, Settings
from framelens.probes.run.shape import shape_of_run
from framelens.records.commands import block_interrupts
from framelens.records.cores import usable_cores


@dataclass(frozen=True)
class Session:
    """Networks and clips, ready to be measured; `with_own_clips` draws those that are the model's own."""

    networks: dict[str, CausalDiffuser]
    clips: list[Clip]
    settings: Settings
    frames: int

    def measure(self, index: int, begin: Callable[[str], None] = lambda _: None) -> dict[str, xr.Dataset]:
        """Every experiment's Datasets for one clip; `begin` is called with the name of each."""
        clip, other = self.clips[index], control_of(self.clips, index)
        probed_clip = ProbedClip(index, self.networks, clip, other, self.settings, self.frames)
        datasets = {}
        for experiment in self.experiments:
            begin(experiment)
            datasets |= experiments.load(experiment).measure(probed_clip)
        films = film_coords(self.clips, index)
        return {name: dataset.assign_coords(films) for name, dataset in datasets.items()}

    @property
    def experiments(self) -> Sequence[str]:
        """The names of the experiments, in the order in which they are measured."""
        return self.settings.experiments or experiments.names()

    @cached_property
    def shares(self) -> dict[str, float]:
        """The part of a clip's layer evaluations that each experiment makes; they add up to 1."""
        run = shape_of_run(self.networks["trained"], self.settings, self.frames)
        clips = self.settings.clips
        counts = {name: sum(claim_of(name, run).per_clip(clips)) for name in self.experiments}
        return {name: count / max(1, sum(counts.values())) for name, count in counts.items()}

    def with_own_clips(self, folder: Path) -> "Session":
        """The same with the model's own samples, kept in that folder, if that is what its clips are."""
        model = self.networks["trained"]
        if not is_own(self.settings, model):
            return self
        return replace(self, clips=own_clips(self.settings, model, self.frames, folder / OWN_FILE))


def open_session(name: str, settings: Settings, unasked: Collection[str] = ()) -> Session:
    """The model of that name, its random twin and the clips; raises ValueError or FileNotFoundError.

    Settings in `unasked` are as the model is meant to be sampled, where it says so.
    """
    asked = dict(settings.set)
    model = models.load(name, settings.device, settings.dtype, copies=len(NETWORKS), **asked)
    settings = replace(settings.of_model(model, unasked), device=first_device(settings.device))
    settings.chosen_layers(len(Layers(model)))
    frames = frames_of(settings, model)
    g = model.geometry
    require_room_for_clips(settings.clips + 1, frames, (g.channels, g.height, g.width), "--clips")
    with in_one_line(name, settings):
        if is_own(settings, model):
            check_own(settings, model, frames)  # before there is a folder to draw them into
        clips = [] if is_own(settings, model) else read_clips(settings, model, frames)
        if is_spread(model):  # a copy would share the weights on other devices
            random = models.load_shuffled(name, settings.seed, AUTO, settings.dtype, **asked)
        else:
            random = copy_shuffled(model, settings.seed)
    return Session({"trained": model, "random": random}, clips, settings, frames)


def measure_clips(
    session: Session, name: str, missing: list[int], folder: RunFolder, workers: int
) -> Iterator[int]:
    """Measures and writes the missing clips; yields each one's index when it is on disk."""
    workers = min(workers, len(missing))
    if workers > 1:
        yield from _by_processes(name, session.settings, missing, folder, workers)
        return
    for index in missing:
        _measure(session, name, folder, index)
        yield index


def default_workers(device: str, ranks: int = 1) -> int:
    """One process per core on a CPU, where a small network cannot use several; one on a GPU, and one for each
    process that a launcher started."""
    is_alone = ranks == 1 and first_device(device) == "cpu"
    return usable_cores() if is_alone else 1


def _measure(session: Session, name: str, folder: RunFolder, index: int) -> None:
    began = time.perf_counter()
    with in_one_line(name, session.settings), ClipProgress(folder.path, index, session.shares) as progress:
        datasets = session.measure(index, progress.begin)
    folder.write_clip(index, datasets, time.perf_counter() - began)


def _by_processes(
    name: str, settings: Settings, missing: list[int], folder: RunFolder, workers: int
) -> Iterator[int]:
    # Spawned: a forked process cannot use the threads that torch has already started.
    context = get_context("spawn")
    watched, held = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(
        workers, context, initializer=_open_worker, initargs=(watched, name, settings, folder)
    )
    try:
        with block_interrupts():
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
        held.close()  # ends workers that are still measuring; a clip appears whole or not at all
        pool.shutdown(cancel_futures=True)


_worker: list[Any] = []


def _open_worker(watched: Connection, name: str, settings: Settings, folder: RunFolder) -> None:
    threading.Thread(target=_end_with_parent, args=(watched,), daemon=True).start()
    torch.set_num_threads(1)
    session = open_session(name, settings)
    own = identity_of(session.networks["trained"], session.settings, session.clips)
    _worker[:] = [session.with_own_clips(folder.path), name, folder, own]


def _end_with_parent(watched: Connection) -> None:
    """Ends this process when its parent closes its end of the pipe, or ends, however that happens."""
    try:
        watched.recv_bytes()
    except (EOFError, OSError):
        os._exit(1)


def _work(index: int) -> None:
    session, name, folder, own = _worker
    require_unchanged(folder.manifest.identity, own)  # here its message reaches the parent
    _measure(session, name, folder, index)
