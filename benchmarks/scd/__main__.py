"""What separation saves: a dense causal diffuser and its separated twin, by arithmetic and by measured time.

    framelens bench scd                                       # tiny, on a CPU
    framelens bench scd --preset minecraft --device cuda --fusion token_concat prefix
    framelens bench scd --plan runs/dense-tiles/default/plan.json --repeats 25
    framelens bench scd --preset dense-tiles --split 7 8 --vary steps=1,10,20

The command first prints the cost card, from shapes alone. Then dense and separated networks with random
weights take turns in one process, through the contract that samplers use. It measures the time of `encode`,
of a denoising step, of a frame and of the first frame, and peak memory: at the preset's (or plan's) setting,
and against history, denoising steps, decoder depth and batch. The layers of a plan's split may add up to more
than the dense model's: layers that run at every step and also before the past is read are in both halves.

A speed-up is the ratio to the dense arm of the same round. The output shows two predictions with it: by
operations alone, and by a roofline. The roofline adds for each pass the time of linear layers, of attention
and of launching blocks, at least the time to read their bytes, at rates that this command measured before.
VAE and text encoder are not part of any time. The last line of the output is one JSON document.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from framelens.benchmarks import measure
from framelens.benchmarks.scd.card import card, card_rows, card_text
from framelens.benchmarks.scd.memory import check_memory, free_bytes, peak_bytes, what_fits
from framelens.benchmarks.scd.options import parser, read_request
from framelens.benchmarks.scd.presets import Preset
from framelens.benchmarks.scd.results import (
    Folder,
    arms_rows,
    arms_text,
    default_folder,
    manifest,
    rows_of,
    table_text,
)
from framelens.benchmarks.scd.split import compare_split, split_rows, split_text
from framelens.benchmarks.scd.sweeps import DENSE, VARIED, Bench, BenchSettings
from framelens.models.cost.calibration import calibrate
from framelens.models.cost.machine import Machine
from framelens.models.cost.operations import parameters
from framelens.models.loading.devices import device_name
from framelens.records.commands import command_line, exits_as, read_options
from framelens.records.progress import progress_bar

OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "terminated abruptly")
UNSTEADY = 1.25
"""Factor by which the machine's rates may drift without a warning."""
ROOM = 0.7
"""Share of the free memory for weights and caches; the rest is for activations."""


UNPRINTED = ("title", "summary", "text", "complete")
"""What of the manifest the JSON document leaves out."""


@exits_as("bench scd", stopped="finished sweeps are in the results folder")
def main(arguments: list[str]) -> int:
    """Exit status: 0 if everything was measured, 2 if the request is not possible."""
    options = read_options(parser(), arguments)
    document = benchmark(options, command_line("bench scd", arguments))
    print(json.dumps(document))
    return 0


def benchmark(options: argparse.Namespace, command: str) -> dict[str, Any]:
    """The JSON document of the requested preset."""
    full, settings = read_request(options)
    return time_preset(full, settings, command, options.out, options.memory, options.threads)


def time_preset(
    full: Preset,
    settings: BenchSettings,
    command: str,
    out: Path | None = None,
    memory: bool = True,
    threads: int | None = None,
) -> dict[str, Any]:
    """The JSON document; card, sweeps and arms are printed and written as they finish."""
    planned_threads = None if settings.prediction is None else settings.prediction.threads
    threads = threads or planned_threads or settings.preset.threads
    if threads is not None:
        torch.set_num_threads(threads)
    name = device_name(settings.device)
    print(
        f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}, {settings.dtype}\n",
        flush=True,
    )
    costs = card(full, settings.dtype)
    text = card_text(full, costs)
    print(text, flush=True)
    check_memory(settings.preset, settings.networks, settings.dtype, settings.device)
    machine = calibrate(settings.device, settings.dtype, settings.shape(DENSE))
    folder = Folder(
        out or default_folder(full.name, settings.device),
        manifest(command, full, settings, machine, name),
    )
    folder.text.append(text)
    folder.write("bench_card", costs)
    folder.say(describe_timing(full, settings, machine))
    with explain_out_of_memory(settings, folder):
        results = measure_arms(settings, machine, folder, memory)
        folder.say(compare_rates(machine, calibrate(settings.device, settings.dtype, settings.shape(DENSE))))
    folder.complete()
    document = {"kind": folder.manifest.kind} | asdict(folder.manifest)
    document = {key: value for key, value in document.items() if key not in UNPRINTED}
    return document | {"folder": str(folder.path), "card": card_rows(costs)} | results


def measure_arms(settings: BenchSettings, machine: Machine, folder: Folder, memory: bool) -> dict[str, Any]:
    """Split, sweeps and arms as plain values; each is written and printed when it is finished."""
    threads, is_measured = torch.get_num_threads(), memory and measure.can_measure_memory(settings.device)
    common = (settings.device, settings.dtype, settings.seed, threads)
    peaks = {
        arm: _peak(settings, network, mode, *common) if is_measured else None
        for arm, (network, mode) in progress_bar(
            settings.arms.items(), desc="peak memory", unit="arm", leave=False
        )
    }
    bench, sweeps = Bench(settings, machine), {}
    own = compare_split(bench.own(), settings)
    folder.write("bench_split", own)
    split = split_rows(own)
    folder.say(split_text(split, settings.preset, settings.repeats))
    for name, dataset in bench.sweeps():
        varied = name.removeprefix("bench_")
        folder.write(name, dataset)
        sweeps[varied] = rows_of(dataset, varied)
        folder.say(table_text(sweeps[varied], varied, VARIED[varied][1]))
    differences = bench.differences()  # first, because it sets all arms to the preset's setting
    arms = xr.Dataset(
        {
            "first_frame_seconds": bench.first_frames(),
            "largest_difference": differences,
            "peak_bytes": ("arm", [np.nan if peak is None else peak for peak in peaks.values()]),
            "parameters": (
                "arm",
                [parameters(settings.shape(network)) for network, _ in settings.arms.values()],
            ),
        }
    )
    arms.peak_bytes.attrs = {
        "units": "B",
        "long_name": "peak memory while a frame was generated, network included",
    }
    arms.parameters.attrs = {"units": "1", "long_name": "weights"}
    folder.write("bench_arms", arms)
    folder.say(arms_text(arms_rows(arms)))
    return {"split": split, "sweeps": sweeps, "arms": arms_rows(arms)}


def _peak(settings: BenchSettings, network: str, mode: str, *common: Any) -> int:
    """Peak bytes of one arm: on a GPU in this process, on a CPU in a separate process."""
    arguments = (settings.preset, network, mode, *common)
    return (
        peak_bytes(*arguments)
        if settings.device.startswith("cuda")
        else measure.alone(peak_bytes, *arguments)
    )


@contextmanager
def explain_out_of_memory(settings: BenchSettings, folder: Folder) -> Iterator[None]:
    """Turns out-of-memory errors into a ValueError with what would fit and the folder of finished parts."""
    free, preset = free_bytes(settings.device) or 0, settings.preset
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError) and not any(words in str(error) for words in OUT_OF_MEMORY):
            raise
        roomy = int(ROOM * free)
        point = (preset.longest, preset.largest)
        raise ValueError(
            f"{settings.device} ran out of memory ({free / 1e9:.1f} GB were free): "
            f"{what_fits(preset, settings.networks, settings.dtype, roomy, *point)}; "
            f"finished parts are in {folder.path}"
        ) from None


def describe_timing(full: Preset, settings: BenchSettings, machine: Machine) -> str:
    """Text above the times: what is timed, and the rates of the predictions."""
    sliced = "" if settings.preset.what == full.what else (
        f"\nThis is a CPU: it times a slice of {full.name}; use --device cuda for the whole preset."
    )  # fmt: skip
    timed = settings.preset
    return (
        f"{sliced}\ntimed: {timed.what}; {timed.layers}; random weights\n"
        f"{timed.steps} steps, {timed.history} frames of history, batch {timed.batch} unless "
        f"varied; median [min, max] of {settings.repeats} rounds\n"
        f"roofline: {machine.rates}, all measured just now with blocks of these shapes"
    )


def compare_rates(before: Machine, after: Machine) -> str:
    """Text that compares the machine's rates before and after; they drift on a shared machine."""
    ratio = after.flops_per_second / before.flops_per_second
    launching = after.seconds_per_block / before.seconds_per_block
    worst = max(ratio, 1 / ratio, launching, 1 / launching)
    text = f"\nrates of this machine, end over start: {ratio:.2f} in operations per second, "
    text += f"{launching:.2f} in the time to launch a block"
    if worst < UNSTEADY:
        return text
    return f"{text}: the machine is shared or throttled; ratios within a round are more reliable than times"


if __name__ == "__main__":
    sys.exit(main())
