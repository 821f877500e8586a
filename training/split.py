"""framelens split --plan runs/dense-tiles/default/plan.json: acts on a plan, and tells what it buys.

Separates the plan's dense model, fine-tunes it, distils its decoder to few steps, and scores all of them on
the same clips beside the dense model and the dense model that fetches its past once. All samplers are timed
interleaved. Writes split.nc and manifest.json, which `framelens figures` draws. The same command resumes.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from framelens.records.checks import CLIPS, FRAMES, SEED, Rule, between, check, optional, spell_as_flag
from framelens.records.commands import command_line, exits_as, read_options
from framelens.records.manifest import FILE, SplitManifest
from framelens.records.plan import SPLIT_WORLDS, Plan, split_recipe
from framelens.training.recipes import FEW, LAYERS, MOST_COUNT, RECIPES, SEPARATED, SPLIT, TUNED, Recipe

ABOUT = "Acts on a plan: separates and trains its dense model, and tells what that buys."
CONTEXT = 4
"""Given frames."""
KEPT = ("frames", "batch", "muon", "autocast")
"""Settings of a model's own training that its fine-tune takes over."""
RULES: dict[str, Rule] = {
    **dict.fromkeys(("steps", "few_steps", "threads"), between(1, MOST_COUNT)),
    "rounds": between(1, MOST_COUNT),
    "lora": between(0, MOST_COUNT),
    "clips": CLIPS,
    "frames": optional(FRAMES),
    "seed": SEED,
}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="framelens split", description=ABOUT)
    parser.add_argument("--model", default="dense-tiles", help="the dense model that the plan is of")
    parser.add_argument("--plan", type=Path, required=True, help="plan.json of a probe's run of that model")
    parser.add_argument("--out", type=Path, help="folder of the run (default: runs/split/<model>)")
    parser.add_argument(
        "--steps", type=int, default=TUNED["steps"],
        help=f"optimiser steps of the fine-tune (default: {TUNED['steps']})",
    )  # fmt: skip
    parser.add_argument(
        "--few-steps", type=int, default=FEW["steps"],
        help=f"optimiser steps of the distillation (default: {FEW['steps']})",
    )  # fmt: skip
    parser.add_argument("--clips", type=int, default=32, help="held-out clips to score on (default: 32)")
    parser.add_argument("--rounds", type=int, default=5, help="times that a frame is timed (default: 5)")
    parser.add_argument("--seed", type=int, default=0, help="decides trainings and noise (default: 0)")
    parser.add_argument(
        "--layers", type=int, nargs=3, metavar=("ENCODER", "DECODER", "HEAD"),
        help="another split than the plan's: layers of the encoder, of the decoder, and those of the decoder "
        "that are the network's first",
    )  # fmt: skip
    training = parser.add_argument_group("training")
    training.add_argument(
        "--lora", type=int, default=0, metavar="RANK",
        help="train adapters of this rank in place of attention and MLP (default: 0, all weights)",
    )  # fmt: skip
    training.add_argument(
        "--control", nargs="?", const="", metavar="MODEL",
        help="score the dense model that was trained for as many steps more, too: this one, or, without a "
        "name, one that is trained now",
    )  # fmt: skip
    training.add_argument(
        "--dense-few", nargs="?", const="", metavar="MODEL",
        help="score the dense model that was itself distilled to few steps, too: this one, or, without a "
        "name, one that is distilled now",
    )  # fmt: skip
    done = parser.add_argument_group("what is trained already")
    done.add_argument("--separated", help="a separated model of that plan, instead of a fine-tune")
    done.add_argument("--few", help="its distilled student, instead of a distillation")
    data = parser.add_argument_group("clips")
    data.add_argument("--videos", help="a world, or a file or folder of latents (default: as in training)")
    data.add_argument("--frames", type=int, help="frames of a clip (default: as in training)")
    machine = parser.add_argument_group("machine")
    machine.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    machine.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    return parser


@exits_as("split", stopped="the same command goes on from here")
def main(arguments: list[str]) -> int:
    """Exit status: 0 when scored, 2 when the request cannot be met, 130 when stopped."""
    options = read_options(parser(), arguments)
    check(options, RULES, spell_as_flag)
    out = options.out or Path("runs/split") / Path(options.model).stem
    print(split(options, out, command_line("split", arguments)))
    return 0


def split(options: argparse.Namespace, out: Path, command: str) -> Path:
    """The folder with the finished comparison; ValueError for a plan that cannot be acted on."""
    import torch

    from framelens import records
    from framelens.models.loading.devices import check_device, device_name
    from framelens.training.samplers import Trained, make_arms
    from framelens.training.trade import measure_trade

    torch.set_num_threads(options.threads)
    check_device(options.device, "float32")
    plan = Plan.read(options.plan)
    videos = require_splittable(plan, options)
    tuning = fine_tune(plan, videos, options)
    separated = options.separated or str(_train(tuning, out / "separated", options))
    few = options.few or str(_train(distillation(separated, options), out / "few", options))
    distil_dense = partial(distillation_of_dense, tuning, options)
    control = _train_unnamed(options.control, tuning.as_control, out / "control", options)
    dense_few = _train_unnamed(options.dense_few, distil_dense, out / "dense-few", options)
    trained = Trained(separated, few, control, dense_few)
    arms = make_arms(options.model, plan, tuning, trained, options.device, options.layers)
    result = measure_trade(
        arms, videos, tuning.frames, options.clips, CONTEXT, options.rounds, options.seed, options.device
    )
    settings = {name: str(v) if isinstance(v, Path) else v for name, v in vars(options).items()}
    manifest = SplitManifest(
        title=f"What separating {options.model} buys",
        summary=f"{options.clips} held-out clips of {videos}, the first {CONTEXT} frames given; each sampler "
        f"timed {options.rounds} times, interleaved, threads: {options.threads}.",
        **records.origin(command, "torch", "numpy", "xarray", "scikit-image"),
        settings=settings | {"context": CONTEXT} | trained._asdict(),
        device=device_name(options.device),
        complete=True,
    )
    records.write_netcdf(out / "split.nc", result.assign_attrs(manifest.attributes()))
    manifest.write(out / FILE)
    return out


def require_splittable(plan: Plan, options: argparse.Namespace) -> str:
    """The world of the plan's model; ValueError where the plan is of another model, or has no split."""
    from framelens import models
    from framelens.diffusion.contract import traits
    from framelens.training.source import open_source

    if plan.architecture is None and options.layers is None:
        raise ValueError(f"{options.plan} has no split to act on: the model is {plan.verdict}")
    source = traits(models.load(options.model)).source
    if plan.model.name != models.label(options.model):
        raise ValueError(f"{options.plan} is of {plan.model.name}, not of {options.model}: give its --model")
    videos = options.videos or source.metadata.get("videos")
    if videos is None:
        raise ValueError(f"{options.model} does not store what it was trained on: give --videos")
    open_source(videos)  # an unknown one says so
    return videos


def fine_tune(plan: Plan, videos: str, options: argparse.Namespace) -> Recipe:
    """The recipe that separates the model as planned and fine-tunes it.

    A framelens dense network becomes an SCD, by its world's shipped recipe where there is one; another
    network is separated by its layers, with the settings of its own training where its file stores them.
    """
    from framelens import models
    from framelens.diffusion.contract import traits
    from framelens.models.dense import Dense

    model, planned = models.load(options.model), plan.architecture or {}
    trained = (traits(model).source.metadata.get("training") or {}).get("recipe") or {}
    if options.layers is not None:
        planned = planned | dict(zip(LAYERS, options.layers, strict=True))
    if not isinstance(model, Dense):
        kept = {name: trained[name] for name in KEPT if name in trained}
        shipped = replace(Recipe(SEPARATED, videos), **TUNED | kept)
        planned = {name: planned[name] for name in LAYERS if name in planned}
    elif videos in SPLIT_WORLDS:
        shipped = RECIPES[split_recipe(videos)]
    else:
        shipped = replace(Recipe("scd", videos, architecture=SPLIT), **TUNED)
    return replace(
        shipped,
        frames=options.frames or shipped.frames,
        architecture=shipped.architecture | planned,
        initial=options.model,
        lora_rank=options.lora,
        steps=options.steps,
        seed=options.seed,
    )


def distillation(separated: str, options: argparse.Namespace) -> Recipe:
    """The recipe that distils the decoder of the separated model; its architecture is the teacher's."""
    from framelens import models
    from framelens.diffusion.contract import traits

    trained = Recipe(**traits(models.load(separated)).source.metadata["training"]["recipe"])
    return replace(
        trained,
        **FEW | {"steps": options.few_steps},
        initial=separated,
        teacher=separated,
        train_only="decoder",
        seed=options.seed,
    )


def distillation_of_dense(tuning: Recipe, options: argparse.Namespace) -> Recipe:
    """The recipe that distils the whole dense model, in as many steps."""
    return replace(
        tuning.as_control(),
        **FEW | {"steps": options.few_steps},
        lora_rank=0,
        initial=options.model,
        teacher=options.model,
    )


def _train_unnamed(
    model: str | None, recipe: Callable[[], Recipe], folder: Path, options: argparse.Namespace
) -> str | None:
    """The model that an option names, or, where it has no name, one that is trained by the recipe."""
    return str(_train(recipe(), folder, options)) if model == "" else model


def _train(recipe: Recipe, folder: Path, options: argparse.Namespace) -> Path:
    from framelens.training.loop import train

    return train(recipe, folder, options.device)


if __name__ == "__main__":
    sys.exit(main())
