"""framelens compare-train --videos tiles: dense and separated networks at an equal budget.

Trains every arm (training/arms.py) on the same clips for the same number of steps, measures the seconds of a
step, all arms interleaved in this process, and scores samples: the next frame from its true past, and free
runs. Writes compare.nc and manifest.json, which `framelens.reports` draws. The same command resumes a stopped
comparison; a folder whose networks were trained with other settings is refused.
"""

import argparse
import sys
from pathlib import Path

from framelens.records.checks import CLIPS, SEED, Rule, between, check, each, one_of, spell_as_flag
from framelens.records.commands import command_line, exits_as, read_options
from framelens.records.manifest import FILE, CompareManifest
from framelens.training.arms import ARMS, recipe_of
from framelens.training.recipes import MOST_COUNT, Recipe

CONTEXT = 3
"""Frames before the first that is predicted."""
DENOISING_STEPS = 20
RULES: dict[str, Rule] = {
    **dict.fromkeys(("steps", "seeds", "rounds", "threads"), between(1, MOST_COUNT)),
    "clips": CLIPS,
    "seed": SEED,
    "arms": each(one_of("arm", lambda: ARMS)),
}
Trainings = dict[tuple[str, int], tuple[Recipe, Path]]
"""Recipe and folder of each training, by arm and training seed."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="framelens compare-train", description=__doc__)
    parser.add_argument("--videos", default="tiles", help="a world of videos/")
    parser.add_argument("--steps", type=int, default=500, help="optimiser steps per network (default: 500)")
    parser.add_argument(
        "--seeds", type=int, default=1, help="trainings per arm, with seeds from --seed on (default: 1)"
    )
    parser.add_argument("--arms", nargs="+", default=list(ARMS), metavar="ARM", help=f"of: {', '.join(ARMS)}")
    parser.add_argument("--clips", type=int, default=32, help="held-out clips to score on (default: 32)")
    parser.add_argument(
        "--rounds", type=int, default=5, help="times that a step of each is timed (default: 5)"
    )
    parser.add_argument("--out", type=Path, help="folder of the run (default: runs/compare/<videos>)")
    parser.add_argument(
        "--seed", type=int, default=0, help="first training seed; decides the noise of samples (default: 0)"
    )
    machine = parser.add_argument_group("machine")
    machine.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    machine.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    return parser


@exits_as("compare-train", stopped="the same command goes on from here")
def main(arguments: list[str]) -> int:
    """Exit status: 0 when compared, 2 when the request cannot be met, 130 when stopped."""
    options = read_options(parser(), arguments)
    check(options, RULES, spell_as_flag)
    options.arms = list(dict.fromkeys(options.arms))
    command = command_line("compare-train", arguments)
    print(compare(options, options.out or Path("runs/compare") / options.videos, command))
    return 0


def compare(options: argparse.Namespace, out: Path, command: str) -> Path:
    """The folder with the finished comparison; ValueError where it holds networks of other recipes."""
    import torch
    import xarray as xr

    from framelens import records
    from framelens.models.loading.devices import check_device
    from framelens.training.scores import score_arms, time_steps
    from framelens.videos import worlds

    torch.set_num_threads(options.threads)
    check_device(options.device, "float32")
    worlds.load(options.videos)  # an unknown one says so
    trainings = plan_trainings(options, out)
    train_missing(trainings, options.device)
    folders = {key: folder for key, (_, folder) in trainings.items()}
    result = score_arms(folders, CONTEXT, DENOISING_STEPS, options.clips, options.device, options.seed)
    recipes = [trainings[arm, options.seed][0] for arm in options.arms]
    result["step_seconds"] = xr.DataArray(
        time_steps(recipes, options.rounds, options.device),
        dims=("arm", "round"),
        attrs={"units": "s", "long_name": "one optimiser step, interleaved"},
    )
    manifest = describe(options, command)
    records.write_netcdf(out / "compare.nc", result.assign_attrs(manifest.attributes()))
    manifest.write(out / FILE)
    return out


def plan_trainings(options: argparse.Namespace, out: Path) -> Trainings:
    """The trainings of a comparison. Nothing is written."""
    return {
        (arm, seed): (
            recipe_of(arm, options.videos, seed, options.steps),
            out / "arms" / arm.replace(" ", "-") / str(seed),
        )
        for arm in options.arms
        for seed in range(options.seed, options.seed + options.seeds)
    }


def train_missing(trainings: Trainings, device: str) -> None:
    """Trains what is not finished, after all folders were found to be of their recipes or empty."""
    from framelens.training.loop import train
    from framelens.training.state import TrainingFolder

    finished = {
        key: TrainingFolder(folder, recipe).is_finished() for key, (recipe, folder) in trainings.items()
    }
    for (arm, seed), (recipe, folder) in trainings.items():
        if not finished[arm, seed]:
            print(f"{arm}, seed {seed}", file=sys.stderr)
        train(recipe, folder, device)


def describe(options: argparse.Namespace, command: str) -> CompareManifest:
    """The manifest of a comparison."""
    from framelens import records
    from framelens.models.loading.devices import device_name
    from framelens.videos import worlds

    settings = {name: str(v) if isinstance(v, Path) else v for name, v in vars(options).items()}
    return CompareManifest(
        title=f"Dense and separated networks at an equal budget: {options.videos}",
        summary=(
            f"{len(options.arms)} networks, {options.seeds} training{'s' * (options.seeds > 1)} each, of "
            f"{options.steps} steps on the same clips; scored on {options.clips} held-out clips, the first "
            f"{CONTEXT} frames given, {DENOISING_STEPS} denoising steps."
        ),
        **records.origin(command, "torch", "numpy", "xarray", "scikit-image"),
        settings=settings | {"context": CONTEXT, "denoising_steps": DENOISING_STEPS},
        state_error=getattr(worlds.load(options.videos), "STATE_ERROR", None),
        device=device_name(options.device),
        complete=True,
    )


if __name__ == "__main__":
    sys.exit(main())
