"""Dense against separated networks at the paper's sizes, beside the paper's numbers; the roofline of both."""

from collections.abc import Iterator
from pathlib import Path

import torch
import xarray as xr

from framelens.benchmarks import measure
from framelens.benchmarks.gpu.readings import CannotMeasure, Reading, read_rounds
from framelens.benchmarks.gpu.sizes import FUSIONS, DaySizes
from framelens.benchmarks.scd.__main__ import time_preset
from framelens.benchmarks.scd.arms import PLAIN
from framelens.benchmarks.scd.sweeps import DENSE
from framelens.models.cost.operations import (
    VALUE_BYTES,
    Cost,
    Shape,
    encode_cost,
    modulation_cost,
    step_costs,
)
from framelens.records import read_netcdf

CAPTURED = ("graph", "compile")
COMPILED = ("token_concat", "prefix")
VIDEO_FRAMES = {"wan-1.3b": 4}
"""Frames of video for each frame of latents, of Wan's VAE."""
PAPER = {
    "minecraft": [
        Reading(
            "paper: speed-up of SCD-M over Causal DiT-M", 4.6, "x",
            beside="2.4 s over 0.52 s a frame, wall time on one H100; whether the VAE is in it is not known",
        )
    ],
    "wan-1.3b": [
        Reading(
            "paper: SCD, frames of video", 11.1, "a second",
            beside="one H100, batch 1, 832 x 480, few steps, the VAE included; Self Forcing 8.9",
        ),
        Reading("paper: SCD, latency", 0.29, "s", beside="to the first frame; Self Forcing 0.45"),
    ],
}  # fmt: skip
"""Bai et al. 2026, Tables 1 and 3."""
OURS = "random weights, no VAE, no text encoder"


def time_separation(sizes: DaySizes, out: Path, preset: str, mode: str) -> list[Reading]:
    """Times of all arms of that preset, plain and in that mode, beside the paper's; results are in `out`.

    A compiled arm is compared with the plain one; its peak memory is not measured, nor that of a rehearsal.
    """
    is_compiled = mode == "compile"
    if is_compiled and sizes.is_rehearsal:
        raise CannotMeasure("a rehearsal does not compile")
    settings = sizes.bench(preset, (PLAIN, mode), COMPILED if is_compiled else FUSIONS)
    folder = out / (f"{preset}-compile" if is_compiled else preset)
    memory = not is_compiled and not sizes.is_rehearsal
    command = f"framelens bench gpu --preset {preset}"
    document = time_preset(sizes.presets[preset], settings, command, folder, memory)
    own = read_netcdf(folder / "bench_split.nc")
    readings = []
    for arm in own.arm.values:
        if not is_compiled or str(own["mode"].sel(arm=arm).values) == mode:
            readings += _read_arm(own.sel(arm=arm), document["arms"][str(arm)], preset)
    return readings + (PAPER[preset] if not is_compiled else [])


def _read_arm(own: xr.Dataset, about: dict, preset: str) -> Iterator[Reading]:
    """Frame time, rate, first frame, speed-up, memory and difference of one arm."""
    arm, frame = str(own.arm.values), own.sample_seconds + own.encode_seconds
    yield read_rounds(f"{arm}: a frame", frame.values, "ms", 1000, OURS)
    if preset in VIDEO_FRAMES:
        rates = VIDEO_FRAMES[preset] / frame.values
        yield read_rounds(f"{arm}: frames of video", rates, "a second", beside="4 for each frame of latents")
    yield Reading(f"{arm}: start and first frame", about["first_frame_seconds"]["median"], "s", beside=OURS)
    if str(own.network.values) != DENSE:
        share = float(own.speed_up / own.speed_up_by_operations)
        yield Reading(
            f"{arm}: speed-up", float(own.speed_up), "x", float(own.speed_up_low), float(own.speed_up_high),
            f"{float(own.speed_up_by_operations):.2f} by operations, of which {share:.0%} is reached",
        )  # fmt: skip
    if about["peak_bytes"] is not None:
        yield Reading(f"{arm}: peak memory", about["peak_bytes"] / 1e9, "GB")
    if about["largest_relative_difference"] is not None:
        yield Reading(f"{arm}: difference from plain", about["largest_relative_difference"])


def measure_roofline(sizes: DaySizes, out: Path) -> list[Reading]:
    """The device's copy bandwidth and matrix rate, and what share of them encode and denoise reach."""
    timed = {name: out / name / "bench_split.nc" for name in sizes.presets}
    timed = {name: file for name, file in timed.items() if file.exists()}
    if not timed:
        raise CannotMeasure("it reads the times of the presets, of which none is measured")
    moved, multiplied = _measure_rates(sizes)
    readings = [
        Reading("copy bandwidth", moved / 1e9, "GB/s", beside="bytes read and written by a copy"),
        Reading("matrix rate", multiplied / 1e12, "TFLOP/s", beside=f"{sizes.matrix} squared, {sizes.dtype}"),
    ]
    for name, file in timed.items():
        own = read_netcdf(file)
        for arm in own.arm.values:
            row, preset = own.sel(arm=arm), sizes.presets[name]
            shape = preset.shape(str(row.network.values), value_bytes=VALUE_BYTES[sizes.dtype])
            for part, cost in _costs(shape, preset.steps, preset.history).items():
                seconds = float(row[f"{part}_seconds"].median())
                arithmetic, bandwidth = cost.flops / seconds / multiplied, cost.bytes / seconds / moved
                what = "encode" if part == "encode" else "denoise"
                readings.append(
                    Reading(
                        f"{name}, {arm}, {what}: share of the matrix rate", 100 * arithmetic, "%",
                        beside=f"{100 * bandwidth:.0f} % of the copy bandwidth",
                    )
                )  # fmt: skip
    return readings


def _costs(shape: Shape, steps: int, history: int) -> dict[str, Cost]:
    """Cost of all denoising steps of a frame and of encoding it, all branches."""
    sample = modulation_cost(shape, steps)
    for count, step in step_costs(shape, steps, history):
        sample += step * count
    return {"encode": encode_cost(shape, history) * shape.branches, "sample": sample * shape.branches}


def _measure_rates(sizes: DaySizes) -> tuple[float, float]:
    """Bytes that a copy reads and writes, and operations of a matrix product, in a second; best rounds."""
    n, dtype = sizes.matrix, getattr(torch, sizes.dtype)
    one, other = (torch.randn(n, n, device=sizes.device).to(dtype) for _ in range(2))
    source = torch.zeros(16 * n * n, dtype=torch.uint8, device=sizes.device)
    target, product = torch.empty_like(source), torch.empty_like(one)
    runs = {"copy": lambda: target.copy_(source), "matrix": lambda: torch.mm(one, other, out=product)}
    taken = measure.interleave(runs, 10, sizes.device, 0)
    best = {name: min(each.wall_seconds) for name, each in taken.items()}
    return 2 * source.nbytes / best["copy"], 2 * n**3 / best["matrix"]
