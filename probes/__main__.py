"""framelens probe --model dense-tiles: probes a model on clips, or resumes a stopped run."""

import sys
import time
from collections.abc import Collection
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from framelens.probes.run.options import BESIDE, parser, settings_of
from framelens.probes.run.resume import Resume, require_unchanged
from framelens.probes.run.settings import Settings, refuse_path
from framelens.records.commands import command_line, exits_as, read_options
from framelens.records.plan import FILE

if TYPE_CHECKING:  # they import torch, which --help does without
    import framelens.models.loading.ranks
    import framelens.probes.run.work
    import framelens.records.manifest

MOST_WORKERS = 1024


@exits_as("probe", stopped="the same command goes on from here")
def main(arguments: list[str]) -> int:
    """Exit status: 0 when the run is complete, 2 when the request cannot be met, 130 when stopped."""
    options = vars(read_options(parser(), arguments))
    model, run, out, workers, fresh, same_code = (options.pop(name) for name in BESIDE)
    if run is not None:
        refuse_path(run)
    settings, unasked = settings_of(options)
    if workers is not None and not 1 <= workers <= MOST_WORKERS:
        raise ValueError(f"--workers must be from 1 to {MOST_WORKERS}, got {workers}")
    repeated = [word for word in arguments if word not in ("--fresh", "--same-code")]
    command, resume = command_line("probe", repeated), Resume(fresh, same_code)
    folder = probe(model, settings, out, run, workers, command, unasked, resume)
    if folder is not None:
        print(folder)
    return 0


def probe(
    name: str,
    settings: Settings,
    out: Path,
    run: str | None,
    workers: int | None,
    command: str,
    unasked: Collection[str] = (),
    resume: Resume | None = None,
) -> Path | None:
    """The folder of the finished run, for the first of the processes that a launcher started. Settings that
    were not given follow the model's own sampling recipe."""
    from framelens import models

    models.find(name)  # before the heavy imports: a misspelt name answers at once

    import torch

    from framelens.hooks.attention import self_test
    from framelens.models.loading.ranks import join_ranks
    from framelens.probes.run.folder import manifest
    from framelens.probes.run.work import default_workers, open_session
    from framelens.records.lock import hold_folder

    ranks = join_ranks(settings.device)
    workers = default_workers(settings.device, ranks.size) if workers is None else workers
    if max(workers, ranks.size) > 1:
        torch.set_num_threads(1)  # as in the workers: a clip's numbers do not depend on who measured it
    session = open_session(name, settings, unasked)
    _say_what_was_rounded(settings, session, unasked)
    settings, model = session.settings, session.networks["trained"]
    self_test(settings.device, getattr(torch, settings.dtype))
    label = models.label(name)
    described = manifest(command, model, label, settings, session.frames, name, session.clips)
    path = out / label / (run or settings.slug(model))
    with hold_folder(path) if ranks.is_first else nullcontext():
        _measure(name, session, path, described, ranks, workers, resume)
    return path if ranks.is_first else None


def _measure(
    name: str,
    session: "framelens.probes.run.work.Session",
    path: Path,
    described: "framelens.records.manifest.ProbeManifest",
    ranks: "framelens.models.loading.ranks.Ranks",
    workers: int,
    resume: Resume | None,
) -> None:
    """Measures the clips that the folder lacks, and completes it when all ranks have measured theirs."""
    from framelens.models.loading.devices import device_name
    from framelens.probes.plan.build import write_plan
    from framelens.probes.run.failures import in_one_line
    from framelens.probes.run.folder import RunFolder
    from framelens.probes.run.progress import FORMAT, forget, watch
    from framelens.probes.run.work import measure_clips
    from framelens.records.progress import progress_bar

    settings = session.settings
    folder = RunFolder(path, described, ranks.is_first, resume)
    missing = folder.missing(settings.clips)
    with in_one_line(name, settings):
        if missing and ranks.is_first:  # the others read what it draws
            session = session.with_own_clips(folder.path)
        missing, first = ranks.broadcast((missing, folder.manifest.identity))
        if missing:
            require_unchanged(first, folder.manifest.identity)
        session = session.with_own_clips(folder.path) if missing else session
    began = time.perf_counter()
    done = settings.clips - len(missing)
    if ranks.is_first:
        forget(folder.path)
    with (
        progress_bar(
            total=settings.clips, initial=done, desc=described.model.name, bar_format=FORMAT,
            is_shown=ranks.is_first,
        ) as bar,
        watch(bar, folder.path, folder.count_clips) as look,
    ):  # fmt: skip
        for _ in measure_clips(session, name, missing[ranks.rank :: ranks.size], folder, workers):
            look()
        ranks.wait(look)
    if ranks.is_first:
        seconds = time.perf_counter() - began
        if not folder.is_finished:
            folder.complete(settings.clips, device_name(settings.device), len(missing), seconds)
        if not folder.is_finished or not (folder.path / FILE).exists():
            write_plan(folder.path, session.networks["trained"])


def _say_what_was_rounded(asked: Settings, session: Any, unasked: Collection[str]) -> None:
    """One line on stderr for each requested count that cannot be had: of frames that are no whole
    chunks, of probed frames that are more than chunks."""
    chunk, settings = session.networks["trained"].geometry.frames_per_chunk, session.settings
    pairs = {
        "context": (asked.context, settings.context),
        "frames": (asked.frames, session.frames),
    }
    changed = [
        f"--{name} {was} becomes {now}"
        for name, (was, now) in pairs.items()
        if name not in unasked and was not in (None, now)
    ]
    if changed:
        print(
            f"framelens probe: the model makes {chunk} frames at a time: {', '.join(changed)}",
            file=sys.stderr,
        )
    drawn = (session.frames - settings.context) // chunk
    if "probed" not in unasked and asked.probed > drawn:
        what = "frames" if chunk == 1 else f"chunks of {chunk} frames"
        print(
            f"framelens probe: {drawn} {what} follow the context: --probed {asked.probed} becomes {drawn}",
            file=sys.stderr,
        )


if __name__ == "__main__":
    sys.exit(main())
