"""Results of `scd_bench`: a folder for the reports, tables on the screen, one JSON document.

<folder>/manifest.json   bench_card.nc   bench_history.nc, bench_steps.nc, ...   bench_arms.nc
"""

from dataclasses import asdict, replace
from itertools import chain, count
from pathlib import Path
from typing import Any

import torch
import xarray as xr

from framelens.benchmarks import measure
from framelens.benchmarks.results import require_unused
from framelens.benchmarks.scd.presets import Preset
from framelens.benchmarks.scd.sweeps import DENSE, BenchSettings
from framelens.models.cost.machine import Machine
from framelens.records import origin, write_netcdf
from framelens.records.manifest import FILE, BenchManifest

VERSIONS = ("torch", "numpy", "xarray")


class Folder:
    """A run's folder; each file is written atomically, the manifest says when the folder is complete."""

    def __init__(self, path: Path, manifest: BenchManifest):
        require_unused(path, (path / FILE).exists() and BenchManifest.read(path / FILE).complete)
        path.mkdir(parents=True, exist_ok=True)
        self.path, self.manifest, self.text = path, manifest, []
        self._write_manifest(complete=False)

    def say(self, text: str) -> None:
        """Prints the text, and keeps it for the page."""
        print(text, flush=True)
        self.text.append(text)

    def write(self, name: str, dataset: xr.Dataset) -> None:
        """One dataset as <name>.nc."""
        write_netcdf(self.path / f"{name}.nc", dataset.assign_attrs(self.manifest.attributes()))

    def complete(self) -> None:
        """Marks the folder as complete in the manifest."""
        self._write_manifest(complete=True)

    def _write_manifest(self, complete: bool) -> None:
        self.manifest = replace(self.manifest, text="\n".join(self.text), complete=complete)
        self.manifest.write(self.path / FILE)


def default_folder(preset: str, device: str) -> Path:
    """runs/bench/<preset>-<device>, with a number if that folder holds results already."""
    first = Path("runs/bench") / f"{preset}-{device.partition(':')[0]}"
    numbered = (first.with_name(f"{first.name}-{number}") for number in count(2))
    return next(path for path in chain([first], numbered) if not (path / FILE).exists())


def manifest(
    command: str, full: Preset, settings: BenchSettings, machine: Machine, device_name: str
) -> BenchManifest:
    """The manifest: what repeats the run, and what was measured."""
    timed = settings.preset
    about = {"what": timed.what, "is_slice": timed is not full and timed.what != full.what}
    about |= {key: value for key, value in asdict(timed).items() if key not in ("dense", "scd", "what")}
    return BenchManifest(
        title=f"Dense against separated: {full.name}",
        summary=f"Timed on {device_name}: {timed.what}; {timed.layers}. Random weights, on which times do "
        "not depend.",
        **origin(command, *VERSIONS),
        preset=full.name,
        timed=about,
        networks={"dense": asdict(timed.dense), "scd": asdict(timed.scd)},
        random_weights=True,
        plan=None if settings.prediction is None else asdict(settings.prediction),
        settings={
            "fusions": list(settings.fusions), "modes": list(settings.modes), "device": settings.device,
            "dtype": settings.dtype, "threads": torch.get_num_threads(), "repeats": settings.repeats,
            "seed": settings.seed,
        },
        machine={"device_name": device_name} | asdict(machine),
        text="",
        complete=False,
    )  # fmt: skip


def rows_of(dataset: xr.Dataset, varied: str) -> list[dict[str, Any]]:
    """One row per point and arm: medians and extremes over rounds, and predictions."""
    rows = []
    for value in dataset[varied].values:
        point = dataset.sel({varied: value})
        steps = int(value) if varied == "steps" else int(dataset.attrs["steps"])
        batch = int(value) if varied == "batch" else int(dataset.attrs["batch"])
        frame = point.sample_seconds + point.encode_seconds
        roofline = point.sample_roofline_seconds + point.encode_roofline_seconds
        dense = frame.sel(arm=DENSE) if DENSE in frame.arm else frame.isel(arm=0)
        for arm in point.arm.values:
            at = {"arm": arm}
            rows.append(
                {
                    varied: int(value),
                    "arm": str(arm),
                    "encode_seconds": _spread(point.encode_seconds.sel(at)),
                    "denoise_step_seconds": _spread(point.sample_seconds.sel(at) / steps),
                    "frame_seconds": _spread(frame.sel(at)),
                    "frames_per_second": batch / float(frame.sel(at).median()),
                    "speed_up": _spread(dense / frame.sel(at)),
                    "speed_up_by_flops": float(point.frame_flops.sel(arm=DENSE) / point.frame_flops.sel(at)),
                    "speed_up_by_roofline": float(roofline.sel(arm=DENSE) / roofline.sel(at)),
                    "frame_flops": float(point.frame_flops.sel(at)),
                    "measured_over_roofline": float(frame.sel(at).median() / roofline.sel(at)),
                    "cache_bytes": int(point.cache_bytes.sel(at)),
                }
            )
    return rows


def table_text(rows: list[dict[str, Any]], varied: str, words: str) -> str:
    """Rows as a table: medians, with smallest and largest of the rounds in brackets."""
    head = f"{'encode ms':>11}{'step ms':>10}{'frame ms':>27}{'frames/s':>10}{'speed-up':>21}"
    text = ["", f"{words:32}{head}{'by FLOPs':>10}{'by roofline':>12}"]
    before = None
    for row in rows:
        label = f"{row[varied]:>6}  {row['arm']}" if row[varied] != before else f"{'':6}  {row['arm']}"
        before = row[varied]
        frame = f"{_milli(row['frame_seconds'], 'median')} [{_milli(row['frame_seconds'], 'min')}, "
        frame += f"{_milli(row['frame_seconds'], 'max')}]"
        ratio = "{median:.2f} [{min:.2f}, {max:.2f}]".format(**row["speed_up"])
        text.append(
            f"{label:32}{_milli(row['encode_seconds'], 'median'):>11}"
            f"{_milli(row['denoise_step_seconds'], 'median'):>10}{frame:>27}"
            f"{row['frames_per_second']:10.2f}{ratio:>21}{row['speed_up_by_flops']:10.2f}"
            f"{row['speed_up_by_roofline']:12.2f}"
        )
    return "\n".join(text)


def arms_rows(dataset: xr.Dataset) -> dict[str, dict[str, Any]]:
    """By arm: time to the first frame, peak memory, parameters, difference of a captured arm."""
    return {
        str(arm): {
            "first_frame_seconds": _spread(dataset.first_frame_seconds.sel(arm=arm)),
            "peak_bytes": _or_none(dataset.peak_bytes.sel(arm=arm)),
            "parameters": int(dataset.parameters.sel(arm=arm)),
            "largest_relative_difference": _or_none(dataset.largest_difference.sel(arm=arm)),
        }
        for arm in dataset.arm.values
    }


def arms_text(rows: dict[str, dict[str, Any]]) -> str:
    """The arms as a table."""
    text = ["", f"{'':32}{'first frame ms':>27}{'peak MB':>10}{'parameters M':>14}{'differs by':>12}"]
    for arm, row in rows.items():
        first = row["first_frame_seconds"]
        cells = f"{_milli(first, 'median')} [{_milli(first, 'min')}, {_milli(first, 'max')}]"
        peak = "-" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 1e6:.1f}"
        differs = row["largest_relative_difference"]
        text.append(
            f"{arm:32}{cells:>27}{peak:>10}{row['parameters'] / 1e6:14.2f}"
            f"{'-' if differs is None else f'{differs:.1e}':>12}"
        )
    return "\n".join(text)


def _milli(spread: dict[str, float], which: str) -> str:
    value = 1000 * spread[which]
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}"


def _spread(values: xr.DataArray) -> dict[str, float]:
    return measure.spread([float(value) for value in values.values.ravel()])


def _or_none(value: xr.DataArray) -> float | None:
    return None if bool(value.isnull()) else float(value)
