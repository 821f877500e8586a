"""framelens estimate --preset wan-1.3b --dtype bfloat16: what a probe run will need.

Computed from shapes: memory by what uses it, and block evaluations by experiment with their operations and
the time at a given speed. The flags of a run (--steps, --frames, --quick, --tokens, ...) mean the same here.
`framelens estimate --train` states what a training will need instead, and has options of its own.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from framelens.models.cost.presets import PRESETS
from framelens.probes.estimate.presets import STEPS, shape_of_preset
from framelens.probes.run.options import parser as run_parser
from framelens.probes.run.options import settings_of
from framelens.probes.run.settings import Settings
from framelens.records.checks import MOST_FRAMES
from framelens.records.commands import exits_as, read_options

if TYPE_CHECKING:
    from framelens.probes.run.shape import RunShape


def parser() -> argparse.ArgumentParser:
    """The command line: the options of a run, and those of an estimate."""
    parser = argparse.ArgumentParser(add_help=False)
    size = parser.add_argument_group("what is estimated")
    size.add_argument(
        "--preset", choices=PRESETS, help="instead of --model: a network of known size, without weights"
    )
    size.add_argument("--chunk", type=int, default=1, help="frames that a preset makes together")
    size.add_argument(
        "--teraflops", type=float, default=300, help="assumed speed, in 1e12 operations per second"
    )
    return run_parser("framelens estimate", __doc__, [parser])


@exits_as("estimate")
def main(arguments: list[str]) -> int:
    """Exit status: 0, or 2 when the request cannot be met."""
    options = vars(read_options(parser(), arguments))
    model, preset, chunk, teraflops, *_ = (
        options.pop(name) for name in ("model", "preset", "chunk", "teraflops", "run", "out", "workers")
    )
    if not 1 <= chunk <= MOST_FRAMES or not 0 < teraflops < math.inf:
        raise ValueError(
            f"--chunk and --teraflops must be positive, --chunk at most {MOST_FRAMES}, got {chunk} and "
            f"{teraflops:g}"
        )
    settings, unasked = settings_of(options)
    if preset is None:
        name, run = _of_model(model, settings, unasked)
    else:
        steps = STEPS if "steps" in unasked and not settings.quick else settings.steps
        name, run = preset, shape_of_preset(preset, chunk, replace(settings, steps=steps))
    print("\n".join([*_about(name, run), "", *memory_lines(run), "", *work_lines(run, teraflops)]))
    return 0


def _about(name: str, run: "RunShape") -> list[str]:
    settings = run.settings
    return [
        f"{name}: {run.parameters / 1e9:.2f} billion weights, {run.layers} layers of width {run.d_model}, "
        f"{run.tokens} tokens a chunk; clips of {run.chunks} chunks, {settings.steps} steps, {settings.dtype}"
    ]


def memory_lines(run: "RunShape") -> list[str]:
    """Lines of text: bytes by what uses them, and their sum."""
    from framelens.probes.estimate.memory import room

    parts = room(run)
    lines = [f"{size / 1e9:8.2f} GB  {name}" for name, size in parts.items()]
    return ["memory, one clip at a time", *lines, f"{sum(parts.values()) / 1e9:8.2f} GB  together"]


def work_lines(run: "RunShape", teraflops: float) -> list[str]:
    """Lines of text: passes, operations and hours by experiment, their sums, and the hours of all clips."""
    from framelens.probes.estimate.work import evaluations, flops_of_pass

    passes = {name: count / run.layers for name, count in evaluations(run).items()}
    flops = {name: count * flops_of_pass(run, name == "rollouts") for name, count in passes.items()}
    order = sorted(passes, key=lambda name: -flops[name])
    rows = [(passes[name], flops[name], name) for name in order]
    rows.append((sum(passes.values()), sum(flops.values()), "together"))
    lines = [
        f"{count:10.0f}  {operations / 1e15:9.2f} PFLOP  {_hours(operations, teraflops):7.2f} h  {name}"
        for count, operations, name in rows
    ]
    clips, hours = run.settings.clips, _hours(sum(flops.values()), teraflops)
    rate = f"at {teraflops:g} TFLOP/s; {clips} clips take {clips * hours:.1f} h"
    return ["work per clip, in passes through all layers of one chunk", *lines, rate]


def _hours(operations: float, teraflops: float) -> float:
    return operations / teraflops / 1e12 / 3600


def _of_model(name: str, settings: Settings, unasked: Sequence[str]) -> tuple[str, "RunShape"]:
    """A loaded model's label, and the shape of a run with the settings with which it would be probed."""
    from framelens import models
    from framelens.probes.run.clips import frames_of
    from framelens.probes.run.shape import shape_of_run

    model = models.load(name, "cpu", settings.dtype, **dict(settings.set))
    settings = settings.of_model(model, unasked)
    return models.label(name), shape_of_run(model, settings, frames_of(settings, model))


if __name__ == "__main__":
    sys.exit(main())
