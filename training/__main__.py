"""python -m framelens.training --model dense-tiles: trains a model, or resumes a stopped training."""

import argparse
import json
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

from framelens.records.commands import exits_as
from framelens.training.recipes import RECIPES, RELEASED, Recipe, recipe


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m framelens.training", description=__doc__)
    parser.add_argument("--model", default="dense-tiles", help=f"a recipe: {', '.join(RECIPES)}")
    parser.add_argument("--out", type=Path, help="folder of the run (default: runs/train/<model>)")
    parser.add_argument("--steps", type=int, help="optimiser steps (default: the recipe's)")
    parser.add_argument("--batch", type=int, help="clips per step (default: the recipe's)")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="NAME=VALUE",
        help="other settings of the recipe (training/recipes.py), such as learning_rate=1e-3 fusion=add",
    )  # fmt: skip
    parser.add_argument(
        "--released", action=argparse.BooleanOptionalAction, default=False,
        help="optimiser, averaging and noise as in the released recipe for Minecraft",
    )  # fmt: skip
    parser.add_argument(
        "--plan", type=Path, help="architecture of `python -m framelens.probes plan`, for a scd recipe"
    )
    parser.add_argument("--seed", type=int, default=0, help="decides weights, clips and noise")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--threads", type=int, help="CPU threads (default: all cores)")
    return parser


@exits_as("training", stopped="the same command goes on from here")
def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 when trained, 2 when the request cannot be met, 130 when stopped."""
    options = parser().parse_args(arguments)
    chosen = _recipe(options)
    out = options.out or Path("runs/train") / options.model
    print(_train(chosen, out, options.device, options.threads))
    return 0


def _recipe(options: argparse.Namespace) -> Recipe:
    counts = {name: getattr(options, name) for name in ("steps", "batch", "threads")}
    for name, value in counts.items():
        if value is not None and value < 1:
            raise ValueError(f"--{name} must be at least 1, got {value}")
    plain = recipe(options.model)
    changes: dict[str, Any] = dict(RELEASED) if options.released else {}
    architecture = dict(plain.architecture) | _planned(options.plan, plain)
    names = {field.name: type(getattr(plain, field.name)) for field in fields(Recipe)}
    for setting in options.set:
        name, equals, text = setting.partition("=")
        if not equals:
            raise ValueError(f"--set takes NAME=VALUE, got {setting!r}")
        if name in names and name != "architecture":
            changes[name] = _value(name, text, names[name])
        else:
            architecture[name] = _value(name, text, None)
    changes |= {name: value for name, value in counts.items() if value is not None and name != "threads"}
    return recipe(options.model, seed=options.seed, **{**changes, "architecture": architecture})


def _planned(path: Path | None, plain: Recipe) -> dict[str, Any]:
    """The architecture in a plan; empty without one."""
    if path is None:
        return {}
    if plain.network != "scd":
        raise ValueError(
            f"--plan is of a separated network, the recipe of a {plain.network} one; choose a scd recipe"
        )
    try:
        plan = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is not a plan: {error}") from None
    if not isinstance(plan, dict) or "architecture" not in plan:
        raise ValueError(
            f"{path} has no architecture; make a plan: python -m framelens.probes plan --model X --out {path}"
        )
    if plan["architecture"] is None:
        raise ValueError(f"{path} has no split to train: the model is {plan.get('verdict', 'not decided')}")
    return plan["architecture"]


def _value(name: str, text: str, kind: type | None) -> Any:
    """The text as JSON or, where it is none, as it stands; of the kind that the setting has."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        value = text
    if kind is float and type(value) is int:
        value = float(value)
    if kind not in (None, type(None)) and type(value) is not kind:
        raise ValueError(f"--set {name} takes {kind.__name__}, got {text!r}")
    return value


def _train(chosen: Recipe, out: Path, device: str, threads: int | None) -> Path:
    import torch

    from framelens.models.loading.devices import check_device
    from framelens.training.trainer import train

    if threads is not None:
        torch.set_num_threads(threads)
    check_device(device, "float32")
    try:
        return train(chosen, out, device)
    except torch.OutOfMemoryError:
        raise ValueError(
            f"{device} has too little memory for {chosen.batch} clips of {chosen.frames} frames; lower "
            "--batch, or keep less for the backward pass by --set recompute=true"
        ) from None


if __name__ == "__main__":
    sys.exit(main())
