"""How the cost of probing grows: with tokens, layers, steps, history, keys and clips.

    framelens bench growth
    framelens bench growth --repeats 25 --out runs/bench/growth-idle

Networks of random weights on one thread of a CPU. The slope of a cost is that of the line through its
logarithms: 1 is a cost in proportion, 0 a constant one. Times are of the process, which other processes
disturb less than the clock on the wall; the interval is that of the median slope over rounds.
"""

import argparse
import json
import sys
from pathlib import Path

from framelens.benchmarks.results import require_unused
from framelens.records.checks import Rule, at_least, between, check, spell_as_flag
from framelens.records.commands import command_line, exits_as, read_options

FILE = "growth.json"
RULES: dict[str, Rule] = {"repeats": between(1, 1000), "seed": at_least(0)}


@exits_as("bench growth")
def main(arguments: list[str]) -> int:
    """Exit status: 0 when all was measured, 2 when the request cannot be met."""
    options = read_options(parser(), arguments)
    check(options, RULES, spell_as_flag)
    require_unused(options.out, (options.out / FILE).exists())

    import torch

    from framelens.benchmarks import measure
    from framelens.benchmarks.growth.figure import draw
    from framelens.benchmarks.growth.slopes import table_text
    from framelens.benchmarks.growth.sweeps import Sizes, measure_growth
    from framelens.models.loading.devices import device_name
    from framelens.records import origin, write_json, write_text
    from framelens.reports.drawing import style

    torch.set_num_threads(1)
    memory = options.memory and measure.can_measure_memory("cpu")
    found = measure_growth(Sizes(), options.repeats, memory, options.seed)
    command = command_line("bench growth", arguments)
    table = table_text(found, options.repeats)
    document = {"kind": "growth", **origin(command, "torch", "numpy"), "repeats": options.repeats}
    document["growths"] = [each.describe() for each in found]
    write_json(options.out / FILE, document)
    write_text(options.out / "growth.md", f"# How costs grow\n\n`{command}`\n\n{table}\n")
    about = f"{device_name('cpu')}, one thread, median of {options.repeats} rounds, random weights"
    figure, numbers = draw(found, about)
    files = style.save(figure, numbers, options.out / "growth", command)
    print(table, *files, options.out / FILE, json.dumps(document), sep="\n")
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="framelens bench growth",
        description="how costs grow with tokens, layers, steps, history, keys and clips",
    )
    parser.add_argument("--repeats", type=int, default=6, help="timed rounds of all runs (default: 6)")
    parser.add_argument(
        "--memory",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="measure peak memory, each point in a process of its own",
    )
    parser.add_argument("--seed", type=int, default=0, help="decides the order of the runs")
    parser.add_argument("--out", type=Path, default=Path("runs/bench/growth"), help="folder for the results")
    return parser


if __name__ == "__main__":
    sys.exit(main())
