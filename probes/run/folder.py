"""A run's folder: one atomic folder of results per clip, then the merged files; resuming skips what is there.

runs/<model>/<run>/manifest.json   clips/0000/*.nc ...   step_similarity.nc, frame_attention.nc, ...
"""

import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import xarray as xr

from framelens.diffusion.contract import CausalDiffuser, module_of, traits
from framelens.probes import experiments
from framelens.probes.run.probed_clip import grid_of, probed_frames
from framelens.probes.run.settings import Settings
from framelens.records import now, origin, write_netcdf
from framelens.records.manifest import FILE, ProbedModel, ProbeManifest

VERSIONS = ("torch", "transformer-lens", "numpy", "xarray", "safetensors")
OTHER = {"model": "another model", "settings": "other settings", "sigmas": "other noise levels"}
"""What must agree before a run is continued, and what it has where it does not."""
SHOWN, LONGEST, NOT_STORED = 4, 32, "not stored"
"""Differences named in a message, letters of a value in it, and what is not there."""

Datasets = dict[str, xr.Dataset]


class RunFolder:
    """Where one run's results live. Everything in it appears whole or not at all."""

    def __init__(self, path: Path, manifest: ProbeManifest, is_own: bool = True):
        """Creates the folder, or continues one made by the same settings and model; else ValueError.

        A folder that is finished is left as it is, to the last byte.
        With `is_own` False another process does this, and this process only adds clips.
        """
        self.path, self.manifest, self.is_finished = path, manifest, False
        if not is_own:
            return
        existing = ProbeManifest.read(path / FILE) if (path / FILE).exists() else None
        if existing is not None:
            self._require_same(existing)
            self.is_finished = self._is_whole(existing)
            if self.is_finished:
                self.manifest = existing
                return
            self.manifest = replace(manifest, created=existing.created, sessions=existing.sessions)
        (path / "clips").mkdir(parents=True, exist_ok=True)
        for leftover in (path / "clips").glob("partial-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        self.write_manifest(complete=False)

    def _is_whole(self, existing: ProbeManifest) -> bool:
        """Whether the run is complete, with the results of every clip, and all of them joined."""
        if not existing.complete or self.missing(existing.settings["clips"]):
            return False
        return all((self.path / file.name).exists() for file in self._clip(0).glob("*.nc"))

    def _require_same(self, existing: ProbeManifest) -> None:
        before, wanted = asdict(existing), asdict(self.manifest)
        for name in OTHER:
            if before[name] != wanted[name]:
                found = _describe_differences(before[name], wanted[name])
                raise ValueError(
                    f"{self.path} has {OTHER[name]} ({found}); choose another --run or delete it"
                )

    def missing(self, clips: int) -> list[int]:
        """The clips that have no results yet."""
        return [clip for clip in range(clips) if not self._clip(clip).exists()]

    def write_clip(self, clip: int, datasets: Datasets, seconds: float) -> None:
        """One clip's results, all of its files at once."""
        partial = self.path / "clips" / f"partial-{clip:04d}-{os.getpid()}"
        try:
            partial.mkdir(parents=True)
            for name, dataset in datasets.items():
                described = dataset.assign_coords(clip=[clip]).assign_attrs(seconds=round(seconds, 2))
                write_netcdf(partial / f"{name}.nc", described)
            os.replace(partial, self._clip(clip))
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def complete(self, clips: int, device_name: str, measured: int, seconds: float) -> None:
        """Joins the clips' files along `clip`, adds what needs all of them, and says so in the manifest."""
        merged = {
            name: self._join(name, clips) for name in sorted(f.stem for f in self._clip(0).glob("*.nc"))
        }
        for experiment in map(experiments.load, self.manifest.settings["experiments"] or experiments.names()):
            if hasattr(experiment, "conclude"):
                merged |= experiment.conclude(merged)
        for name, dataset in merged.items():
            write_netcdf(self.path / f"{name}.nc", dataset)
        if measured:
            session = {
                "finished": now(),
                "device": device_name,
                "clips": measured,
                "seconds": round(seconds, 1),
            }
            self.manifest = replace(self.manifest, sessions=(*self.manifest.sessions, session))
        self.write_manifest(complete=True)

    def _join(self, name: str, clips: int) -> xr.Dataset:
        parts = [xr.load_dataset(self._clip(clip) / f"{name}.nc", engine="h5netcdf") for clip in range(clips)]
        for part in parts:
            del part.attrs["seconds"]
        return xr.concat(
            parts,
            "clip",
            data_vars="minimal",
            coords="minimal",
            compat="equals",
            join="exact",
            combine_attrs="drop_conflicts",
        )

    def _clip(self, clip: int) -> Path:
        return self.path / "clips" / f"{clip:04d}"

    def write_manifest(self, complete: bool) -> None:
        """Writes the manifest; a complete one is what reports look for."""
        self.manifest = replace(self.manifest, complete=complete)
        self.manifest.write(self.path / FILE)


def manifest(
    command: str, model: CausalDiffuser, label: str, settings: Settings, frames: int, loaded_from: str
) -> ProbeManifest:
    """What repeats a run, and what was measured; `loaded_from` is what --model named."""
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
        **origin(command, *VERSIONS),
        loaded_from=loaded_from,
        model=about,
        settings=settings.describe() | {"frames": frames, "probed_frames": probed},
        sigmas=tuple(grid_of(settings).tolist()),
        sessions=(),
        complete=False,
    )


def _describe_differences(was: Any, wanted: Any) -> str:
    """What was and what is wanted, by name where they differ: steps 20, not 10; seed 0, not 1."""
    found = list(_find_differences("", was, wanted))
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return (
        "; ".join(f"{name} {_shorten(a)}, not {_shorten(b)}".strip() for name, a, b in found[:SHOWN]) + more
    )


def _find_differences(name: str, was: Any, wanted: Any) -> Iterator[tuple[str, Any, Any]]:
    if not (isinstance(was, dict) and isinstance(wanted, dict)):
        yield name, was, wanted
        return
    for part in (*wanted, *(was.keys() - wanted.keys())):
        before, after = was.get(part, NOT_STORED), wanted.get(part, NOT_STORED)
        if before != after:
            yield from _find_differences(f"{name}.{part}".strip("."), before, after)


def _shorten(value: Any) -> str:
    """The value, of a long one its two ends."""
    text = str(value)
    half = LONGEST // 2
    return text if len(text) <= LONGEST else f"{text[:half]}...{text[-half:]}"
