"""framelens plan --model X --steps T --history F: can X be separated, where, and why?

Reads a finished run of the model (framelens probe --model X) and prints the verdict with its
evidence. The saving of the split is predicted from rates measured on this machine, and from operations.
The JSON's `architecture` is what models/scd.py's config and `framelens train --plan` take.
"""

import argparse
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from framelens.models.cost.operations import VALUE_BYTES
from framelens.records.assignments import parse_assignments
from framelens.records.commands import command_line, exits_as, read_options
from framelens.records.manifest import FILE as MANIFEST
from framelens.records.manifest import ProbeManifest
from framelens.records.notes import print_note
from framelens.records.plan import FILE
from framelens.records.runs import find_run

if TYPE_CHECKING:  # it imports torch, which --help does without
    from framelens.probes.plan.build import Clocks


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="framelens plan", description=__doc__, usage="%(prog)s [options]")
    use = parser.add_argument_group("how the model is used")
    rates = parser.add_argument_group("where rates come from")
    parser.add_argument("--model", default="dense-tiles", help="a shipped model or the path of a checkpoint")
    parser.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="settings that the model's checkpoint does not contain (default: as in the run)",
    )
    parser.add_argument("--run", help="name or path of a finished run (default: the model's largest)")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of all runs")
    parser.add_argument("--steps", type=int, required=True, help="denoising steps per frame")
    parser.add_argument("--history", type=int, required=True, help="frames before the generated one")
    use.add_argument("--tokens", type=int, help="tokens per frame (default: the model's)")
    use.add_argument("--batch", type=int, default=1, help="clips at a time (default: 1)")
    use.add_argument(
        "--fusion", help="how the decoder receives features (default: residual where the split allows it)"
    )
    use.add_argument("--dtype", default="float32", choices=VALUE_BYTES, help="of weights, keys and values")
    rates.add_argument("--device", default="auto", help="whose rates are measured (default: a GPU if any)")
    rates.add_argument("--threads", type=int, help="CPU threads (default: torch's)")
    clock = rates.add_mutually_exclusive_group()
    clock.add_argument("--clock", type=Path, help="folder of a benchmark whose rates are used instead")
    clock.add_argument("--no-clock", action="store_true", help="predict by operations alone")
    parser.add_argument("--out", type=Path, help=f"JSON to write (default: {FILE} in the run's folder)")
    return parser


@exits_as("plan")
def main(arguments: list[str]) -> int:
    """Exit status: 0 when a plan was made, whatever its verdict, 2 when the request cannot be met."""
    options = read_options(parser(), arguments)
    from framelens.probes.plan.build import plan
    from framelens.probes.plan.prediction import Use
    from framelens.probes.plan.text import text

    use = Use(options.steps, options.history, options.tokens, options.batch, options.dtype, options.fusion)
    clocks = _clocks(options)
    folder, config = _find_run_and_model(
        options.model, options.run, options.runs, parse_assignments(options.set)
    )
    file = options.out or folder / FILE
    command = command_line("plan", arguments)
    found = replace(plan(folder, config, use, clocks, file), command=command)
    print(text(found))
    print(found.write(file))
    return 0


def _clocks(options: argparse.Namespace) -> "Clocks | None":
    """The source of rates: this machine, a benchmark's folder, or None."""
    from framelens.probes.plan.prediction import Clock

    if options.no_clock:
        return None
    if options.clock is not None:
        clock = Clock.read(options.clock)
        return lambda _: clock

    import torch

    from framelens.models.loading.devices import check_device, first_device

    device = first_device(options.device)
    check_device(device, options.dtype)
    if options.threads is not None:
        if options.threads < 1:
            raise ValueError(f"--threads must be at least 1, got {options.threads}")
        torch.set_num_threads(options.threads)
    return partial(Clock.now, device, options.dtype)


def _find_run_and_model(
    name: str, run: str | None, runs: Path, requested: dict[str, Any]
) -> tuple[Path, Any]:
    """The folder of a finished run, and the model's description."""
    from framelens import models
    from framelens.probes.plan.prediction import describe

    label = models.label(name)
    folder = _find_run(label, run, runs) if run else _find_largest(name, label, runs, requested)
    manifest = ProbeManifest.read(folder / MANIFEST)
    if manifest.model.name != label:
        raise ValueError(f"{folder} is a run of {manifest.model.name}, not of {label}; give its own --run")
    if not manifest.complete:
        raise ValueError(f"{folder} is not finished; run again: {manifest.command}")
    stored = manifest.settings["set"]
    if requested not in ({}, stored):
        raise ValueError(
            f"{folder} is a run with --set {stored or 'nothing'}, not {requested}; give its own --run"
        )
    return folder, describe(models.load(name, **stored))


def _find_run(label: str, run: str, runs: Path) -> Path:
    own = runs / label / run
    return own if (own / MANIFEST).exists() else find_run(run, runs)


def _find_largest(name: str, label: str, runs: Path, requested: dict[str, Any]) -> Path:
    """The finished run with cuts of all layers and most clips, the newest of equals.

    A run that cannot be read is left out and named in a note; if there are only such runs, the error names
    the first.
    """
    ranked, unreadable = [], []
    for path in (runs / label).glob(f"*/{MANIFEST}"):
        try:
            manifest = ProbeManifest.read(path)
        except ValueError as error:
            unreadable.append(error)
            continue
        if manifest.complete and (path.parent / "cut.nc").exists():
            settings = manifest.settings
            if requested not in ({}, settings["set"]):
                continue
            rank = (not settings["quick"], settings["clips"], manifest.created)
            ranked.append((rank, path.parent))
    if not ranked and unreadable:
        raise unreadable[0]
    if not ranked:
        raise ValueError(
            f"no finished run of {label} with interventions under {runs}; make one: "
            f"framelens probe --model {name} --out {runs}"
        )
    for error in unreadable:
        print_note(f"framelens plan: left out: {error}")
    return max(ranked)[1]


if __name__ == "__main__":
    sys.exit(main())
