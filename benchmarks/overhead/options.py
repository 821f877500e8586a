"""The command line of the overhead benchmark, and what its values may be."""

import argparse
from pathlib import Path

from framelens.models.loading.devices import check_device
from framelens.records.checks import Rule, at_least, between, check, each, spell_as_flag

ABOUT = "What watching costs: a rollout under all streaming statistics, beside the plain rollout."
RULES: dict[str, Rule] = {
    **dict.fromkeys(("steps", "layers", "repeats"), between(1, 1000)),
    "tokens": each(between(1, 100_000)),
    "frames": between(2, 1000),
    "seed": at_least(0),
}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="framelens bench overhead", description=ABOUT)
    parser.add_argument("--tokens", type=int, nargs="+", default=[64, 256, 1024], help="tokens per frame")
    parser.add_argument("--frames", type=int, default=5, help="frames; the last is sampled (default: 5)")
    parser.add_argument("--steps", type=int, default=8, help="denoising steps (default: 8)")
    parser.add_argument("--layers", type=int, default=6, help="layers of the network (default: 6)")
    parser.add_argument("--repeats", type=int, default=5, help="timed rounds of all arms (default: 5)")
    parser.add_argument(
        "--memory",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="measure peak memory, each arm in a process of its own",
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--json", type=Path, help="also write the JSON document to this file")
    parser.add_argument("--seed", type=int, default=0, help="decides weights, clip and the order of the arms")
    return parser


def check_options(options: argparse.Namespace) -> None:
    """ValueError or FileNotFoundError for a value that cannot be; a GPU that is missing is one."""
    check(options, RULES, spell_as_flag)
    check_device(options.device, "float32")
    if options.json is not None and not options.json.parent.is_dir():
        raise FileNotFoundError(f"--json {options.json}: found no folder {options.json.parent}")
