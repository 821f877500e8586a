"""How long an optimiser step takes: a dense network against separated ones at the same clips.

    framelens bench training
    framelens bench training --preset tiny --arms prefix asking --frames 10 --repeats 15

Every network has random weights and trains on clips of noise by teacher forcing and AdamW: forward pass,
backward pass, optimiser. Ratios, dense over separated, are within one round. Beside them stands the ratio of
how many layers the tokens pass through. A dense network passes [clean | noisy] through all layers. A
separated one passes the clean clip through its encoder once, with its query tokens beside it where it asks,
and each noise draw through its decoder.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from framelens.benchmarks.results import require_unused, spell_median
from framelens.records.checks import Rule, at_least, between, check, each, one_of, spell_as_flag
from framelens.records.commands import command_line, exits_as, read_options

if TYPE_CHECKING:  # it imports torch, which --help does without
    from framelens.benchmarks.scd.presets import Preset

FILE = "training.json"
ARMS = ("prefix", "asking", "token_concat", "channel_concat", "add")
"""Separated networks: a fusion, or prefix with an encoder that asks with noise."""
RULES: dict[str, Rule] = {
    "arms": each(one_of("arm", lambda: ARMS)),
    **dict.fromkeys(("frames", "batch", "draws", "repeats", "threads"), between(1, 1000)),
    "seed": at_least(0),
}


@exits_as("bench training")
def main(arguments: list[str]) -> int:
    """Exit status: 0 when all was measured, 2 when the request cannot be met."""
    options = read_options(parser(), arguments)
    check(options, RULES, spell_as_flag)
    require_unused(options.out, (options.out / FILE).exists())

    import torch

    from framelens.benchmarks.scd.presets import choose_preset
    from framelens.models.loading.devices import check_device, device_name
    from framelens.records import origin, write_json, write_text

    check_device(options.device, "float32")
    torch.set_num_threads(options.threads)
    preset = choose_preset(options.preset, options.device.startswith("cuda"))[1]
    rows = time_arms(preset, options)
    command = command_line("bench training", arguments)
    names = ("preset", "frames", "batch", "draws", "threads", "repeats")
    document: dict[str, Any] = {"kind": "training", **origin(command, "torch", "numpy")}
    document |= {name: getattr(options, name) for name in names}
    document |= {"device": device_name(options.device), "arms": rows}
    clips = f"{options.batch} clip{'s' * (options.batch > 1)} of {options.frames} frames"
    title = f"{preset.what}; {preset.layers}; {clips}, noise draws: {options.draws}; {document['device']}"
    table = f"{title}, threads: {options.threads}, rounds: {options.repeats}\n\n{table_text(rows)}"
    write_json(options.out / FILE, document)
    write_text(options.out / "training.md", f"# A training step\n\n`{command}`\n\n{table}\n")
    print(table, options.out / FILE, json.dumps(document), sep="\n")
    return 0


def time_arms(preset: "Preset", options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Seconds of a step of each arm, the dense one first, and dense over it with its interval."""
    from framelens.benchmarks import measure
    from framelens.benchmarks.scd.arms import network
    from framelens.benchmarks.trained_network import TrainedNetwork

    steps = {}
    for arm in ("dense", *dict.fromkeys(options.arms)):
        model = network(preset, arm, options.device, "float32", options.seed)
        draws = 1 if arm == "dense" else options.draws
        steps[arm] = TrainedNetwork(
            model, preset.dense, options.frames, options.device, options.batch, draws
        ).advance
    taken = measure.interleave(steps, options.repeats, options.device, options.seed)
    rows = {}
    for arm, own in taken.items():
        ratios = taken["dense"].over(own)
        rows[arm] = {
            "seconds": measure.spread(own.wall_seconds),
            "layer_passes": layer_passes(preset, arm, options.draws),
            "ratio": {name: measure.median_of(values) for name, values in ratios.items()},
        }
    return rows


def layer_passes(preset: "Preset", arm: str, draws: int) -> int:
    """How many layers a token of the clip passes through in one step, all of its copies together."""
    if arm == "dense":
        return 2 * preset.dense.layers
    config = preset.separated_config(arm)
    read = 1 + config.asks
    beside = {"prefix": 1, "token_concat": draws}.get(config.fusion, 0)  # what was read, in the decoder
    return read * config.encoder_layers + (draws + beside) * config.decoder_layers


def table_text(rows: dict[str, dict[str, Any]]) -> str:
    """A table in Markdown, one row for each network."""
    lines = [
        "| network | seconds of a step | dense / it, wall | of CPU time | by layer passes |",
        "|---|---|---|---|---|",
    ]
    passes = rows["dense"]["layer_passes"]
    for arm, row in rows.items():
        wall, cpu = (spell_median(row["ratio"][name]) for name in ("wall_seconds", "cpu_seconds"))
        seconds = row["seconds"]["median"]
        lines.append(f"| {arm} | {seconds:.3f} | {wall} | {cpu} | {passes / row['layer_passes']:.2f} |")
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="framelens bench training",
        description="seconds of an optimiser step of a dense network and of separated ones, interleaved",
    )
    parser.add_argument(
        "--preset", default="small", help="a preset of bench scd, or a dense model (default: small)"
    )
    parser.add_argument(
        "--arms", nargs="+", default=list(ARMS), metavar="ARM", help=f"of {', '.join(ARMS)} (default: all)"
    )
    parser.add_argument("--frames", type=int, default=8, help="frames of a clip (default: 8)")
    parser.add_argument("--batch", type=int, default=1, help="clips of a step (default: 1)")
    parser.add_argument(
        "--draws", type=int, default=1, help="noise draws of a clip, for separated networks (default: 1)"
    )
    parser.add_argument("--repeats", type=int, default=10, help="timed rounds of all networks (default: 10)")
    parser.add_argument("--seed", type=int, default=0, help="decides weights, clips and the order of rounds")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/bench/training"), help="folder for the results"
    )
    machine = parser.add_argument_group("machine")
    machine.add_argument("--threads", type=int, default=1, help="threads of a CPU (default: 1)")
    machine.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    return parser


if __name__ == "__main__":
    sys.exit(main())
