"""framelens' sampler against a plain one: the same weights, the same frame, and where its time goes.

    framelens bench sampler
    framelens bench sampler --preset tiny --repeats 25 --out runs/bench/sampler-tiny

The plain sampler is written for this comparison (benchmarks/sampler/reference.py); it is not released code of
anyone. It computes masks, RoPE tables and modulation again in each pass and copies the past in each layer.
The frames of both must be equal within 1e-5 of the largest value. Ratios, plain over ours, are within one
round.
"""

import argparse
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from framelens.benchmarks.results import require_unused, spell_median
from framelens.records.checks import Rule, at_least, between, check, each, one_of, optional, spell_as_flag
from framelens.records.commands import command_line, exits_as, read_options

if TYPE_CHECKING:  # it imports torch, which --help does without
    from framelens.benchmarks.sampler.frames import SampledFrame

FILE = "sampler.json"
EQUAL = 1e-5
ARMS, PRESETS = ("dense", "token_concat", "channel_concat"), ("far-b", "tiny")
RULES: dict[str, Rule] = {
    "preset": one_of("preset", lambda: PRESETS),
    "arms": each(one_of("arm", lambda: ARMS)),
    **dict.fromkeys(("history", "steps"), optional(between(1, 1000))),
    **dict.fromkeys(("repeats", "threads"), between(1, 1000)),
    "seed": at_least(0),
}


@exits_as("bench sampler")
def main(arguments: list[str]) -> int:
    """Exit status: 0 when all was measured, 2 when the request cannot be met."""
    options = read_options(parser(), arguments)
    check(options, RULES, spell_as_flag)
    require_unused(options.out, (options.out / FILE).exists())

    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler says when it starts and stops
    import torch

    from framelens.benchmarks.sampler import frames
    from framelens.models.loading.devices import check_device, device_name
    from framelens.records import origin, write_json, write_text

    check_device(options.device, "float32")
    torch.set_num_threads(options.threads)
    preset = frames.PRESETS[options.preset]
    history = options.history or preset.history
    steps = options.steps or preset.steps
    rows = {}
    for arm in dict.fromkeys(options.arms):
        pair = frames.SampledFrame(preset, arm, history, steps, options.device, options.seed)
        rows[arm] = measure_arm(pair, options.repeats, options.device, options.seed)
    command = command_line("bench sampler", arguments)
    about = {"preset": options.preset, "history": history, "steps": steps, "threads": options.threads}
    document: dict[str, Any] = {"kind": "sampler", **origin(command, "torch", "numpy"), **about}
    document |= {"device": device_name(options.device), "repeats": options.repeats, "arms": rows}
    title = f"{preset.what}; {history} frames of history, {steps} steps; {document['device']}"
    table = f"{title}, threads: {options.threads}, rounds: {options.repeats}\n\n{table_text(rows)}"
    write_json(options.out / FILE, document)
    write_text(options.out / "sampler.md", f"# Our sampler against a plain one\n\n`{command}`\n\n{table}\n")
    print(table, options.out / FILE, json.dumps(document), sep="\n")
    return 0


def measure_arm(pair: "SampledFrame", repeats: int, device: str, seed: int) -> dict[str, Any]:
    """Seconds and ratios of one arm, how equal the frames are, and the operations of both by kind.

    ValueError where the frames differ: then the times do not compare the same work.
    """
    from framelens.benchmarks import measure
    from framelens.benchmarks.sampler.profile import profile

    difference = pair.difference()
    if not difference <= EQUAL:
        raise ValueError(f"the frames of the two samplers differ by {difference:.1e}, more than {EQUAL:g}")
    runs = {"ours": pair.ours, "plain": pair.plain}
    taken = measure.interleave(runs, repeats, device, seed, {"ours": pair.prepare})
    ratios = taken["plain"].over(taken["ours"])
    pair.prepare()
    profiles = {name: profile(run) for name, run in runs.items()}
    return {
        "difference": difference,
        "seconds": {name: measure.spread(each.wall_seconds) for name, each in taken.items()},
        "ratio": {name: measure.median_of(values) for name, values in ratios.items()},
        "operations": {
            name: {kind: asdict(row) for kind, row in rows.items()} for name, rows in profiles.items()
        },
    }


def table_text(rows: dict[str, dict]) -> str:
    """Two tables in Markdown: times by arm, and operations of a frame by kind."""
    lines = [
        "| arm | ours, s | plain, s | plain / ours, wall | of CPU time | frames differ by |",
        "|---|---|---|---|---|---|",
    ]
    for arm, row in rows.items():
        wall, cpu = (spell_median(row["ratio"][name]) for name in ("wall_seconds", "cpu_seconds"))
        seconds = " | ".join(f"{row['seconds'][name]['median']:.3f}" for name in ("ours", "plain"))
        lines.append(f"| {arm} | {seconds} | {wall} | {cpu} | {row['difference']:.0e} |")
    lines += [
        "",
        "| arm, operations of a frame | launches: ours | plain | milliseconds: ours | plain |",
        "|---|---|---|---|---|",
    ]
    for arm, row in rows.items():
        ours, plain = row["operations"]["ours"], row["operations"]["plain"]
        for kind in ours:
            launches = f"{ours[kind]['launches']} | {plain[kind]['launches']}"
            times = " | ".join(f"{each[kind]['microseconds'] / 1000:.1f}" for each in (ours, plain))
            lines.append(f"| {arm}, {kind} | {launches} | {times} |")
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="framelens bench sampler",
        description="framelens' sampler against a plain one that computes everything again in each pass",
    )
    parser.add_argument("--preset", default="far-b", help=f"{' or '.join(PRESETS)} (default: far-b)")
    parser.add_argument(
        "--arms", nargs="+", default=list(ARMS), metavar="ARM", help=f"of {', '.join(ARMS)} (default: all)"
    )
    parser.add_argument("--history", type=int, help="finished frames (default: the preset's, 16 or 8)")
    parser.add_argument("--steps", type=int, help="denoising steps (default: the preset's, 10)")
    parser.add_argument("--repeats", type=int, default=10, help="timed rounds of both (default: 10)")
    parser.add_argument("--threads", type=int, default=1, help="threads of a CPU (default: 1)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--seed", type=int, default=0, help="decides weights, frames and the order of rounds")
    parser.add_argument("--out", type=Path, default=Path("runs/bench/sampler"), help="folder for the results")
    return parser


if __name__ == "__main__":
    sys.exit(main())
