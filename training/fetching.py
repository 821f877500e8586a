"""The options of `framelens evaluate` that score a model with the past fetched once per frame.

add_fetching_options(parser)                        # --fetch-once, --merge, --refresh
network = fetch_past_once(network, options)
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from framelens.records.checks import Rule
from framelens.records.plan import Plan

if TYPE_CHECKING:  # it imports torch, which --help does without
    import framelens.diffusion.contract

ALL_LAYERS = "all"
MERGES = ("softmax", "sum")


def _require_fetching(default: str | None) -> Rule:
    """The rule of an option that only --fetch-once reads."""
    return Rule(
        lambda value, options: value == default or options.fetch_once is not None,
        lambda name, value, options: f"{name} is of --fetch-once: give both",
    )


FETCHING_RULES = {"refresh": _require_fetching(None), "merge": _require_fetching(MERGES[0])}


def add_fetching_options(parser: argparse.ArgumentParser) -> None:
    """Adds --fetch-once, --merge and --refresh."""
    once = parser.add_argument_group("fetch once")
    once.add_argument(
        "--fetch-once", metavar="LAYERS",
        help="score models also with the past fetched once per frame, by that number of first layers: "
        "all, a number, or the plan.json of a run",
    )  # fmt: skip
    once.add_argument(
        "--merge", choices=MERGES, default=MERGES[0],
        help="how --fetch-once merges the past with the frame (default: softmax)",
    )  # fmt: skip
    once.add_argument("--refresh", type=int, metavar="STEPS", help="--fetch-once again every STEPS steps")


def fetch_past_once(
    network: "framelens.diffusion.contract.CausalDiffuser", options: argparse.Namespace
) -> "framelens.diffusion.contract.CausalDiffuser":
    """The network with the past fetched once per frame, as the options say."""
    from framelens.models.variants.fetch_once import fetch_once

    given, cut = options.fetch_once, None
    if given.removeprefix("-").isdecimal():
        cut = int(given)
    elif given != ALL_LAYERS:
        cut = Plan.read(Path(given))
    return fetch_once(network, cut, merge=options.merge, refresh=options.refresh)


def describe_fetching(options: argparse.Namespace) -> str:
    """The options of --fetch-once in words."""
    again = "" if options.refresh is None else f", again every {options.refresh} steps"
    return f"past fetched once by layers: {options.fetch_once}{again} ({options.merge})"
