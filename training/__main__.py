"""framelens train --model dense-tiles: trains a model, or resumes a stopped training.

torchrun --nproc-per-node 2 -m framelens.training --model dense-tiles (or `accelerate launch`) trains on
several processes or GPUs, which share the clips of each step.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from framelens.records.checks import between, check, optional, spell_as_flag
from framelens.records.commands import exits_as, read_options
from framelens.records.plan import Plan
from framelens.training.recipes import MOST_COUNT, RECIPES, RELEASED, Recipe, recipe
from framelens.training.settings import change

WITH_AN_OPTION = ("steps", "batch", "seed")
"""Settings of a recipe that have an option of their own."""
OPTIONS = {name: optional(between(1, MOST_COUNT)) for name in ("steps", "batch", "threads")}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="framelens train", description=__doc__)
    parser.add_argument("--model", default="dense-tiles", help=f"a recipe: {', '.join(RECIPES)}")
    parser.add_argument("--videos", help="a world, a data set, or a path of latents (default: the recipe's)")
    parser.add_argument("--out", type=Path, help="folder of the run (default: runs/train/<model>)")
    parser.add_argument("--steps", type=int, help="optimiser steps (default: the recipe's)")
    parser.add_argument("--batch", type=int, help="clips per step (default: the recipe's)")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="NAME=VALUE",
        help="other settings of the recipe (training/recipes.py) or its network, such as learning_rate=1e-3 "
        "or fusion=add; null removes a setting: cut_from=null",
    )  # fmt: skip
    parser.add_argument(
        "--released", action=argparse.BooleanOptionalAction, default=False,
        help="optimiser, averaging and noise as in the released recipe for Minecraft",
    )  # fmt: skip
    parser.add_argument("--plan", type=Path, help="architecture of `framelens plan`, for a scd recipe")
    parser.add_argument("--seed", type=int, default=0, help="decides weights, clips and noise (default: 0)")
    machine = parser.add_argument_group("machine")
    machine.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    machine.add_argument(
        "--fsdp", action=argparse.BooleanOptionalAction, default=False,
        help="divide weights, gradients, optimiser and average among the launched processes (FSDP2)",
    )  # fmt: skip
    machine.add_argument("--threads", type=int, help="CPU threads (default: all cores)")
    return parser


@exits_as("train", stopped="the same command goes on from here")
def main(arguments: list[str]) -> int:
    """Exit status: 0 when trained, 2 when the request cannot be met, 130 when stopped."""
    options = read_options(parser(), arguments)
    chosen = _recipe(options)
    out = options.out or Path("runs/train") / options.model
    weights = _train(chosen, out, options.device, options.threads, options.fsdp)
    if weights is not None:
        print(weights)
    return 0


def _recipe(options: argparse.Namespace) -> Recipe:
    """The recipe of that name with the changes on the command line."""
    check(options, OPTIONS, spell_as_flag)
    shipped, given = recipe(options.model), {name: getattr(options, name) for name in WITH_AN_OPTION}
    given |= {} if options.videos is None else {"videos": options.videos}
    planned = _read_plan(options.plan, shipped)
    return change(shipped, options.set, given, planned, RELEASED if options.released else None)


def _read_plan(path: Path | None, shipped: Recipe) -> dict[str, Any]:
    """The architecture in a plan; empty without one."""
    if path is None:
        return {}
    if shipped.network != "scd":
        raise ValueError(
            f"--plan is of a separated network, the recipe of a {shipped.network} one; choose a scd recipe"
        )
    plan = Plan.read(path)
    if plan.architecture is None:
        raise ValueError(f"{path} has no split to train: the model is {plan.verdict}")
    return plan.architecture


def _train(chosen: Recipe, out: Path, device: str, threads: int | None, fsdp: bool) -> Path | None:
    """The path of the weights; None on all ranks but the first."""
    import torch

    from framelens.models.loading.devices import check_device
    from framelens.models.loading.ranks import join_ranks, leave_ranks
    from framelens.training.loop import train

    if threads is not None:
        torch.set_num_threads(threads)
    check_device(device, "float32")
    ranks = join_ranks(device, "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo")
    if ranks.size > 1 and device == "cuda":
        device = f"cuda:{torch.cuda.current_device()}"
    try:
        weights = train(chosen, out, device, ranks=ranks, fsdp=fsdp)
        return weights if ranks.is_first else None
    except torch.OutOfMemoryError:
        raise ValueError(
            f"{device} has too little memory for {chosen.batch} clips of {chosen.frames} frames; lower "
            "--batch, or keep fewer activations: --set recompute=true"
        ) from None
    finally:
        leave_ranks()


if __name__ == "__main__":
    sys.exit(main())
