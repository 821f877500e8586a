"""A run's folder: one atomic folder of results per clip, then the merged files; resuming skips what is there.

runs/<model>/<run>/manifest.json   clips/0000/*.nc ...   step_similarity.nc, frame_attention.nc, ...
"""

import json
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import xarray as xr

VERSIONS = ("torch", "transformer-lens", "numpy", "xarray", "safetensors")
IDENTITY = ("model", "settings", "sigmas")
"""What must agree before a run is continued."""

Datasets = dict[str, xr.Dataset]


class RunFolder:
    """Where one run's results live. Everything in it appears whole or not at all."""

    def __init__(self, path: Path, manifest: dict[str, Any]):
        """Creates the folder, or continues one made by the same settings and model; else ValueError."""
        self.path, self.manifest = path, manifest
        existing = _read_manifest(path)
        if existing is not None:
            self._require_same(existing)
            self.manifest = manifest | {"created": existing["created"], "sessions": existing["sessions"]}
        shutil.rmtree(path / "clips" / "partial", ignore_errors=True)
        (path / "clips").mkdir(parents=True, exist_ok=True)
        self.write_manifest(complete=False)

    def _require_same(self, existing: dict[str, Any]) -> None:
        for name in IDENTITY:
            if existing.get(name) != self.manifest[name]:
                raise ValueError(
                    f"{self.path} has another {name}: {existing.get(name)}, not {self.manifest[name]}; "
                    "choose another --run or delete it"
                )

    def missing(self, clips: int) -> list[int]:
        """The clips that have no results yet."""
        return [clip for clip in range(clips) if not self._clip(clip).exists()]

    def write_clip(self, clip: int, datasets: Datasets, seconds: float) -> None:
        """One clip's results, all of its files at once."""
        partial = self.path / "clips" / "partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for name, dataset in datasets.items():
            _write_netcdf(dataset.assign_coords(clip=[clip]), partial / f"{name}.nc")
        os.replace(partial, self._clip(clip))
        self.manifest["sessions"][-1]["clips"] += 1
        self.manifest["sessions"][-1]["seconds"] += round(seconds, 2)
        self.write_manifest(complete=False)

    def start_session(self, device_name: str) -> None:
        """Notes in the manifest that a process begins to work on this run."""
        session = {"started": now(), "device": device_name, "clips": 0, "seconds": 0.0}
        self.manifest["sessions"] = [*self.manifest["sessions"], session]

    def merge(self, clips: int, conclude: Iterable[Callable[[Datasets], Datasets]]) -> None:
        """Joins the clips' files along `clip`, adds what needs all of them, completes the run."""
        names = sorted(file.stem for file in self._clip(0).glob("*.nc"))
        merged = {name: self._joined(name, clips) for name in names}
        for conclusion in conclude:
            merged |= conclusion(merged)
        for name, dataset in merged.items():
            _replace(self.path / f"{name}.nc", lambda path, dataset=dataset: _write_netcdf(dataset, path))
        self.write_manifest(complete=True)

    def _joined(self, name: str, clips: int) -> xr.Dataset:
        parts = [xr.load_dataset(self._clip(clip) / f"{name}.nc", engine="h5netcdf") for clip in range(clips)]
        return xr.concat(parts, "clip", data_vars="minimal", coords="minimal", compat="equals", join="exact")

    def _clip(self, clip: int) -> Path:
        return self.path / "clips" / f"{clip:04d}"

    def write_manifest(self, complete: bool) -> None:
        """Writes the manifest; a complete one is what reports look for."""
        self.manifest["complete"] = complete
        text = json.dumps(self.manifest, indent=2)
        _replace(self.path / "manifest.json", lambda path: path.write_text(text))


def manifest(
    command: list[str], model: Any, name: str, settings: Any, frames: int, probed: list[int]
) -> dict:
    """Everything needed to repeat a run and to know what was measured."""
    from dataclasses import asdict

    from diffusion.schedule import sigma_grid

    geometry = asdict(model.geometry) | {"tokens_per_frame": model.geometry.tokens_per_frame}
    metadata = model.source.metadata
    return {
        "command": command,
        "created": now(),
        "model": {
            "name": name,
            "file": model.source.file.name,
            "sha256": model.source.sha256,
            "parameters": sum(weight.numel() for weight in model.parameters()),
            "geometry": geometry,
            "network": metadata["network"],
            "videos": metadata["videos"],
            "training": metadata.get("training"),
        },
        "settings": settings.describe() | {"frames": frames, "probed_frames": probed},
        "sigmas": sigma_grid(settings.steps, settings.shift).tolist(),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in VERSIONS},
        "git_commit": _git_commit(),
        "sessions": [],
    }


def now() -> str:
    """The time, in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _git_commit() -> str | None:
    here = Path(__file__).resolve().parent
    asked = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=False
    )
    return asked.stdout.strip() or None


def _read_manifest(path: Path) -> dict[str, Any] | None:
    file = path / "manifest.json"
    if not file.exists():
        return None
    try:
        return json.loads(file.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{file} is not valid JSON ({error}); delete {path} or choose another --run"
        ) from None


def _write_netcdf(dataset: xr.Dataset, path: Path) -> None:
    packed = {
        name: {"zlib": True, "complevel": 1} for name, v in dataset.data_vars.items() if v.dtype.kind == "f"
    }
    dataset.to_netcdf(path, engine="h5netcdf", encoding=packed)


def _replace(path: Path, fill: Callable[[Path], object]) -> None:
    partial = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        fill(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
