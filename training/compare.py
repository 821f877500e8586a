"""python -m framelens.training.compare --videos tiles: dense and separated networks at an equal budget.

Trains every arm (training/arms.py) on the same clips for the same number of steps, resumable, measures what
a step of each costs, all arms interleaved in this process, and scores what they draw: the next frame from its
true past, and free runs. Writes compare.nc and manifest.json, which `framelens.reports` draws.
"""

import argparse
import shlex
import sys
from pathlib import Path

from framelens.records.commands import exits_as
from framelens.training.arms import ARMS, recipe_of

CONTEXT = 3
"""Frames before the first that is predicted."""
DENOISING_STEPS = 20


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m framelens.training.compare", description=__doc__)
    parser.add_argument("--videos", default="tiles", help="a world of videos/")
    parser.add_argument("--steps", type=int, default=500, help="optimiser steps per network (default: 500)")
    parser.add_argument(
        "--seeds", type=int, default=1, help="trainings per arm, seeds 0, 1, ... (default: 1)"
    )
    parser.add_argument("--arms", nargs="+", default=list(ARMS), metavar="ARM", help=f"of: {', '.join(ARMS)}")
    parser.add_argument("--clips", type=int, default=32, help="held-out clips to score on (default: 32)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of timing a step (default: 5)")
    parser.add_argument("--out", type=Path, help="folder of the run (default: runs/compare/<videos>)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    return parser


@exits_as("compare", stopped="the same command goes on from here")
def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 when compared, 2 when the request cannot be met, 130 when stopped."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parser().parse_args(arguments)
    _check(options)
    command = shlex.join(["python", "-m", "framelens.training.compare", *arguments])
    print(compare(options, options.out or Path("runs/compare") / options.videos, command))
    return 0


def _check(options: argparse.Namespace) -> None:
    for name in ("steps", "seeds", "clips", "rounds", "threads"):
        if getattr(options, name) < 1:
            raise ValueError(f"--{name} must be at least 1, got {getattr(options, name)}")
    for arm in options.arms:
        if arm not in ARMS:
            raise ValueError(f"no arm is called {arm!r}; there are {', '.join(ARMS)}")


def compare(options: argparse.Namespace, out: Path, command: str) -> Path:
    """The folder with the finished comparison."""
    import torch
    import xarray as xr

    from framelens import records
    from framelens.models.loading.devices import check_device, device_name
    from framelens.training.scores import step_seconds, table
    from framelens.training.trainer import train
    from framelens.videos import worlds

    torch.set_num_threads(options.threads)
    check_device(options.device, "float32")
    world = worlds.load(options.videos)
    recipes = {
        (arm, seed): recipe_of(arm, options.videos, seed, options.steps)
        for arm in options.arms
        for seed in range(options.seeds)
    }
    folders = {}
    for (arm, seed), recipe in recipes.items():
        folders[arm, seed] = out / "arms" / arm.replace(" ", "-") / str(seed)
        if not (folders[arm, seed] / "model.safetensors").exists():
            print(f"{arm}, seed {seed}", file=sys.stderr)
            train(recipe, folders[arm, seed], options.device)
    result = table(folders, CONTEXT, DENOISING_STEPS, options.clips, options.device)
    seconds = step_seconds([recipes[arm, 0] for arm in options.arms], options.rounds, options.device)
    result["step_seconds"] = xr.DataArray(
        seconds, dims=("arm", "round"), attrs={"units": "s", "long_name": "one optimiser step, interleaved"}
    )
    records.write_netcdf(out / "compare.nc", result)
    settings = {name: str(v) if isinstance(v, Path) else v for name, v in vars(options).items()}
    manifest = {
        "kind": "compare",
        "title": f"Dense and separated networks at an equal budget: {options.videos}",
        "summary": (
            f"{len(options.arms)} networks, {options.seeds} training{'s' * (options.seeds > 1)} each, of "
            f"{options.steps} steps on the same clips; scored on {options.clips} held-out clips, the first "
            f"{CONTEXT} frames given, {DENOISING_STEPS} denoising steps."
        ),
        **records.origin(command, "torch", "numpy", "xarray", "scikit-image"),
        "settings": settings | {"context": CONTEXT, "denoising_steps": DENOISING_STEPS},
        "state_error": getattr(world, "STATE_ERROR", None),
        "device": device_name(options.device),
        "complete": True,
    }
    records.write_json(out / "manifest.json", manifest)
    return out


if __name__ == "__main__":
    sys.exit(main())
