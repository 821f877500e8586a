"""A run's folder: one atomic folder of results per clip, then the merged files; resuming skips what is there.

runs/<model>/<run>/manifest.json   clips/0000/*.nc ...   step_similarity.nc, frame_attention.nc, ...

Each clip's content.json has the names and sizes of its files: a clip that lost one is measured again.
"""

import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import xarray as xr

from framelens.analyses.sample import sample_of_films
from framelens.diffusion.contract import CausalDiffuser, module_of, traits
from framelens.probes import experiments
from framelens.probes.chunk.pasts import Clip
from framelens.probes.run.identity import identity_of, windows_of
from framelens.probes.run.pairing import control_films
from framelens.probes.run.probed_clip import grid_of, probed_frames
from framelens.probes.run.resume import Resume, measured_by
from framelens.probes.run.settings import Settings
from framelens.records import (
    now,
    origin,
    read_json_object,
    read_netcdf,
    sync_to_disk,
    write_json,
    write_netcdf,
)
from framelens.records.damage import name_damage
from framelens.records.lock import remove_stale_files
from framelens.records.manifest import FILE, ProbedModel, ProbeManifest

VERSIONS = ("torch", "transformer-lens", "numpy", "xarray", "safetensors")
CONTENT = "content.json"
"""The file of a clip with the sizes of its other files, in bytes by name."""

Datasets = dict[str, xr.Dataset]


class RunFolder:
    """Where one run's results live. Everything in it appears whole or not at all."""

    def __init__(
        self, path: Path, manifest: ProbeManifest, is_own: bool = True, resume: Resume | None = None
    ):
        """Creates the folder, or resumes a run that was computed on the same; else ValueError.

        A folder that is finished is left as it is, to the last byte. What killed processes left, and clips
        that have lost files, are removed from another one: only one process may hold it (records/lock.py).
        With `is_own` False another process does this, and this process only adds clips.
        """
        self.path, self.manifest, self.is_finished = path, manifest, False
        if not is_own:
            return
        resume = resume or Resume()
        existing = resume.find(path, manifest)
        if existing is not None:
            self.is_finished = self._is_whole(existing)
            resume.require_same(path, existing, manifest, self.is_finished)
            if self.is_finished:
                self.manifest = existing
                return
            self.manifest = replace(manifest, created=existing.created, sessions=existing.sessions)
        (path / "clips").mkdir(parents=True, exist_ok=True)
        remove_stale_files(path)
        for clip in (path / "clips").iterdir():
            if not _is_measured(clip):
                shutil.rmtree(clip, ignore_errors=True)
        self.write_manifest(complete=False)

    def _is_whole(self, existing: ProbeManifest) -> bool:
        """Whether the run is complete, with the results of every clip, and all of them joined."""
        if not existing.complete or self.missing(existing.settings["clips"]):
            return False
        return all((self.path / file.name).exists() for file in self._clip(0).glob("*.nc"))

    def missing(self, clips: int) -> list[int]:
        """The clips that have no results yet, or not all of them."""
        return [clip for clip in range(clips) if not _is_measured(self._clip(clip))]

    def count_clips(self) -> int:
        """How many clips have results; clips that have lost files are not looked for."""
        return len(list((self.path / "clips").glob("[0-9]*")))

    def write_clip(self, clip: int, datasets: Datasets, seconds: float) -> None:
        """One clip's results, all of its files at once."""
        partial = self.path / "clips" / f"partial-{clip:04d}-{os.getpid()}"
        try:
            partial.mkdir(parents=True)
            for name, dataset in datasets.items():
                described = dataset.assign_coords(clip=[clip]).assign_attrs(
                    self.manifest.attributes() | measured_by(self.manifest), seconds=round(seconds, 2)
                )
                write_netcdf(partial / f"{name}.nc", described)
            write_json(partial / CONTENT, {file.name: file.stat().st_size for file in partial.glob("*.nc")})
            os.replace(partial, self._clip(clip))
            sync_to_disk(partial.parent)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def complete(self, clips: int, device_name: str, measured: int, seconds: float) -> None:
        """Joins the clips' files along `clip`, adds what needs all of them, and says so in the manifest."""
        merged = {
            name: self._join(name, clips) for name in sorted(f.stem for f in self._clip(0).glob("*.nc"))
        }
        about = self._code_of(merged) | self.manifest.attributes()
        for experiment in map(experiments.load, self.manifest.settings["experiments"] or experiments.names()):
            if hasattr(experiment, "conclude"):
                merged |= experiment.conclude(merged)
        for name, dataset in merged.items():
            write_netcdf(self.path / f"{name}.nc", dataset.assign_attrs(about))
        if measured:
            session = {
                "finished": now(),
                "device": device_name,
                "clips": measured,
                "seconds": round(seconds, 1),
            } | measured_by(self.manifest)
            self.manifest = replace(self.manifest, sessions=(*self.manifest.sessions, session))
        self.write_manifest(complete=True)

    def _code_of(self, merged: Datasets) -> dict[str, str]:
        """The code that measured, as far as it is the same in all files of all clips."""
        first, *others = (dataset.attrs for dataset in merged.values())
        stated = measured_by(self.manifest).keys() & first.keys()
        is_same = {name: all(attrs.get(name) == first[name] for attrs in others) for name in stated}
        return {name: first[name] for name in sorted(stated) if is_same[name]}

    def _join(self, name: str, clips: int) -> xr.Dataset:
        """The results of all clips that have this file; some are of the first clips alone."""
        kept = (clip for clip in range(clips) if f"{name}.nc" in read_json_object(self._clip(clip) / CONTENT))
        return xr.concat(
            [self._load(clip, name) for clip in kept],
            "clip",
            data_vars="minimal",
            coords="minimal",
            compat="equals",
            join="exact",
            combine_attrs="drop_conflicts",
        )

    def _load(self, clip: int, name: str) -> xr.Dataset:
        """The results of one clip; ValueError, which names the file and what to do, for a damaged one."""
        file = self._clip(clip) / f"{name}.nc"
        with name_damage(str(file), f"delete {file.parent} and give the same command again"):
            part = read_netcdf(file)
            del part.attrs["seconds"]
            return part

    def _clip(self, clip: int) -> Path:
        return self.path / "clips" / f"{clip:04d}"

    def write_manifest(self, complete: bool) -> None:
        """Writes the manifest; a complete one is what reports look for."""
        self.manifest = replace(self.manifest, complete=complete)
        self.manifest.write(self.path / FILE)


def _is_measured(clip: Path) -> bool:
    """Whether the folder of a clip has all the files that were written into it, whole."""
    try:
        content = read_json_object(clip / CONTENT)
        return all((clip / name).stat().st_size == size for name, size in content.items())
    except (OSError, ValueError):
        return False


def manifest(
    command: str,
    model: CausalDiffuser,
    label: str,
    settings: Settings,
    frames: int,
    loaded_from: str,
    clips: Sequence[Clip] = (),
) -> ProbeManifest:
    """What repeats a run, and what was measured; `loaded_from` is what --model named."""
    identity, windows = identity_of(model, settings, clips), windows_of(clips)
    controls = control_films(clips, settings.clips)
    sample = sample_of_films(settings.clips, [window.film for window in windows[: settings.clips]], controls)
    has_films = any(each.kind == "film" for each in identity.inputs)
    said = traits(model)
    metadata = said.source.metadata
    about = ProbedModel(
        name=label,
        file=said.source.file.name,
        sha256=said.source.sha256,
        parameters=sum(weight.numel() for weight in module_of(model).parameters()),
        geometry=asdict(model.geometry) | {"tokens_per_frame": model.geometry.tokens_per_frame},
        network=metadata.get("network") or type(model).__name__,
        videos=metadata.get("videos"),
        training=metadata.get("training"),
        assumed=metadata.get("assumed"),
        latent=said.latent,
        sampling=None if said.sampling is None else said.sampling.describe(),
        repo=said.source.repo,
        revision=said.source.revision,
    )
    probed = probed_frames(settings, frames, model.geometry.frames_per_chunk)
    return ProbeManifest(
        **origin(command, *VERSIONS, *(["av"] if has_films else [])),
        loaded_from=loaded_from,
        model=about,
        settings=settings.describe() | {"frames": frames, "probed_frames": probed},
        sigmas=tuple(grid_of(settings).tolist()),
        sessions=(),
        complete=False,
        identity=identity,
        windows=tuple(window.describe() for window in windows),
        control_films=controls,
        notes=tuple(filter(None, [sample.note])),
    )
