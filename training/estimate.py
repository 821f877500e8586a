"""framelens estimate --train --model dense-tiles --memory 16GB: what a training will need.

Computed from shapes, before anything is loaded or written: the bytes of one card by what uses them, and with
--memory whether they fit, and if not, what would. `--model` is a recipe or a checkpoint, `--preset` a network
of known size. models/cost/training.py says what is counted and what is left out.
"""

import argparse
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from framelens.models.cost.presets import FRAMES, PRESETS, shape_of_released
from framelens.models.cost.shape import VALUE_BYTES
from framelens.models.cost.training import TrainingStep
from framelens.records.checks import Rule, between, check, optional, spell_as_flag
from framelens.records.commands import exits_as, read_options
from framelens.training.recipes import ARITHMETIC, CONTINUED, LAYERS, MOST_COUNT, RECIPES, SEPARATED, Recipe
from framelens.training.settings import change

if TYPE_CHECKING:
    from framelens.models.cost.shape import Shape

UNITS = {"MB": 10**6, "GB": 10**9, "TB": 10**12, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
USUAL, USUAL_RANK = "dense-tiles", 32
RULES: dict[str, Rule] = {
    **{name: optional(between(1, MOST_COUNT)) for name in ("batch", "frames", "lora")},
    "gpus": between(1, 100_000),
}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="framelens estimate --train", description=__doc__, usage="%(prog)s [options]"
    )
    parser.add_argument(
        "--model", help=f"a recipe or a checkpoint; recipes: {', '.join(RECIPES)} (default: dense-tiles)"
    )
    parser.add_argument("--preset", choices=PRESETS, help="instead of --model: a network, without weights")
    parser.add_argument("--batch", type=int, help="clips per step, on all cards (default: the recipe's)")
    parser.add_argument(
        "--frames", type=int, help=f"frames per clip (default: the recipe's; of a preset {FRAMES})"
    )
    parser.add_argument("--lora", type=int, metavar="RANK", help="train matrices of this rank instead")
    parser.add_argument("--gpus", type=int, default=1, help="cards that FSDP2 divides it among (default: 1)")
    parser.add_argument("--memory", metavar="SIZE", help="memory of a card, such as 80GB or 24GiB")
    machine = parser.add_argument_group("recipe and machine")
    machine.add_argument(
        "--set", nargs="+", default=[], metavar="NAME=VALUE",
        help="other settings of the recipe, such as recompute=true muon=false noise_draws=2",
    )  # fmt: skip
    machine.add_argument("--dtype", choices=ARITHMETIC, help="of the forward pass (default: the recipe's)")
    machine.add_argument(
        "--device", choices=("cpu", "cuda"), default="cuda", help="whose kernels compute (default: cuda)"
    )
    return parser


@exits_as("estimate --train")
def main(arguments: list[str]) -> int:
    """Exit status: 0, also where it does not fit; 2 when the request cannot be met."""
    options = read_options(parser(), arguments)
    check(options, RULES, spell_as_flag)
    memory = None if options.memory is None else parse_size(options.memory)
    if options.preset is not None and options.model is not None:
        raise ValueError("--preset stands instead of --model: give one of them")
    name, step = options.preset or options.model or USUAL, plan_step(options)
    print("\n".join([*describe(name, step), *verdict(step, memory)]))
    return 0


def parse_size(text: str) -> int:
    """The bytes of "80GB" or "24 GiB"; ValueError without a unit."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?(\w+)", text.strip())
    units = {unit.lower(): size for unit, size in UNITS.items()}
    if not found or found[2].lower() not in units or not float(found[1]):
        raise ValueError(f"--memory is a size such as 80GB or 24GiB, got {text!r}; units: {', '.join(UNITS)}")
    return int(float(found[1]) * units[found[2].lower()])


def plan_step(options: argparse.Namespace) -> TrainingStep:
    """The optimiser step that the options ask for; ValueError where there is none."""
    if options.preset is not None:
        recipe, shape = Recipe(options.preset, "", frames=FRAMES), shape_of_released(options.preset)
        recipe = _apply_options(recipe, options, of_network=False)
    elif (name := options.model or USUAL) in RECIPES:
        recipe = _apply_options(RECIPES[name], options, of_network=True)
        shape = _shape_of_recipe(recipe)
    else:
        recipe, shape = _read_checkpoint(name)
        recipe = _apply_options(recipe, options, of_network=False)
    return _step(recipe, shape, options)


def _apply_options(recipe: Recipe, options: argparse.Namespace, of_network: bool) -> Recipe:
    """The recipe with what the options change; where the sizes are given, they cannot be changed."""
    asked = {"batch": options.batch, "frames": options.frames, "autocast": options.dtype}
    changed = change(recipe, options.set, asked)
    if not of_network and changed.architecture != recipe.architecture:
        unknown = sorted(changed.architecture.keys() - recipe.architecture.keys())
        raise ValueError(f"a recipe has no {', '.join(unknown)}, and the network's sizes are its own")
    return changed


def _step(recipe: Recipe, shape: "Shape", options: argparse.Namespace) -> TrainingStep:
    shape = replace(shape, batch=recipe.batch, value_bytes=VALUE_BYTES[recipe.autocast])
    if recipe.train_only and not shape.is_separated:
        raise ValueError(f"train_only={recipe.train_only}: a {recipe.network} network has no such part")
    if recipe.train_only == "encoder":
        raise ValueError("train_only=encoder is not estimated: the decoder keeps activations for it, too")
    if recipe.teacher and recipe.objective == "dmd":
        raise ValueError("objective=dmd is not estimated: it keeps the pass of every frame of a rollout")
    if recipe.batch % options.gpus:
        raise ValueError(f"{options.gpus} cards cannot share {recipe.batch} clips equally: change --batch")
    return TrainingStep(
        shape,
        recipe.frames,
        draws=recipe.noise_draws if shape.is_separated and not recipe.draws_apart else 1,
        recompute=recipe.recompute,
        fused=options.device == "cuda",
        muon=recipe.muon,
        decoder_only=recipe.train_only == "decoder",
        beside=2 if recipe.teacher else 0,
        lora=options.lora or recipe.lora_rank or None,
        gpus=options.gpus,
    )


def _shape_of_recipe(recipe: Recipe) -> "Shape":
    """The shape of the network that the recipe builds, without memory for its weights."""
    if recipe.network in (SEPARATED, CONTINUED):
        shape = _read_checkpoint(recipe.initial)[1]
        if recipe.network == CONTINUED or shape.is_separated:
            return shape
        encoder, decoder = (int(recipe.architecture[name]) for name in LAYERS[:2])
        how = {"fusion": "residual", "query": "noise"}
        how = {name: str(recipe.architecture.get(name, usual)) for name, usual in how.items()}
        return replace(shape, encoder_layers=encoder, layers=decoder, **how)
    import torch

    from framelens.diffusion.contract import traits
    from framelens.models.cost.shape import shape_of
    from framelens.training.build import build

    with torch.device("meta"):
        return shape_of(traits(build(replace(recipe, initial="", lora_rank=0), "meta")).config)


def _read_checkpoint(name: str) -> tuple[Recipe, "Shape"]:
    """The recipe and the shape of a checkpoint: from its header if framelens wrote it, else it is opened."""
    from framelens import models
    from framelens.diffusion.contract import traits
    from framelens.models.cost.shape import shape_of
    from framelens.models.loading.own import build_own

    metadata, place = _metadata(name), models.find(name)
    if metadata is None:
        model, recipe = models.load(name, "cpu", "bfloat16"), Recipe(place.label, "")
    else:
        model = build_own(place.path, metadata)  # without memory for weights
        stored: dict[str, Any] = metadata.get("training", {}).get("recipe", {})
        is_whole = {"network", "videos"} <= stored.keys()
        recipe = Recipe(**stored) if is_whole else Recipe(metadata["network"], "")
    try:
        return recipe, shape_of(traits(model).config)
    except AttributeError as error:
        raise ValueError(f"{name} does not declare its sizes ({error}), so nothing is estimated") from None


def _metadata(name: str) -> dict[str, Any] | None:
    """What framelens wrote beside the weights of that file; None for other models."""
    from framelens import models
    from framelens.models.loading.files import read_file

    path = models.find(name).path
    path = path / "model.safetensors" if (path / "model.safetensors").exists() else path
    return read_file(Path(path))[0] if path.suffix == ".safetensors" and path.exists() else None


def describe(name: str, step: TrainingStep) -> list[str]:
    """Lines of text: the network, and the bytes of one card by what uses them."""
    from framelens.models.cost.operations import parameters

    shape, parts = step.shape, step.bytes()
    cards = f" on {step.gpus} cards" if step.gpus > 1 else ""
    return [
        f"{name}: {parameters(shape) / 1e6:.1f} million weights, {step.trained / 1e6:.1f} million trained; "
        f"{shape.batch} clips of {step.frames} frames{cards}",
        "",
        *(f"{size / 1e9:8.2f} GB  {part}" for part, size in parts.items()),
        f"{sum(parts.values()) / 1e9:8.2f} GB  together",
    ]


def verdict(step: TrainingStep, memory: int | None) -> list[str]:
    """Lines of text: whether a card of that memory is enough and, if not, what would fit."""
    if memory is None:
        return []
    needed = sum(step.bytes().values())
    if needed <= memory:
        return ["", f"It fits a card of {memory / 1e9:.1f} GB."]
    found = [f"  {_total(other)}  {name}" for name, other in alternatives(step, memory)]
    found = found or ["  nothing that this command tries"]
    return ["", f"It does not fit a card of {memory / 1e9:.1f} GB. What would:", *found]


def _total(step: TrainingStep) -> str:
    return f"{sum(step.bytes().values()) / 1e9:8.2f} GB"


def alternatives(step: TrainingStep, memory: int) -> Iterator[tuple[str, TrainingStep]]:
    """Changes of a step with which it fits: the options as one writes them, and the changed step.

    Recomputed activations, LoRA and both; where these alone are too little, with the largest smaller batch,
    or the fewest more cards.
    """
    recompute = {"": step.recompute} if step.recompute else {"": False, "--set recompute=true": True}
    lora = {"": step.lora} if step.lora else {"": None, f"--lora {USUAL_RANK}": USUAL_RANK}
    for words, rank in product(recompute, lora):
        base = replace(step, recompute=recompute[words], lora=lora[rank])
        name = f"{words} {rank}".strip()
        for tried in ([("", base)], _smaller_batches(base), _more_cards(base)):
            fits = ((text, other) for text, other in tried if sum(other.bytes().values()) <= memory)
            found = next(fits, None)
            if found is not None:
                yield f"{name} {found[0]}".strip(), found[1]
            if found == ("", base):
                break


def _smaller_batches(step: TrainingStep) -> Iterator[tuple[str, TrainingStep]]:
    for clips in range(step.shape.batch - step.gpus, 0, -step.gpus):
        yield f"--batch {clips}", replace(step, shape=replace(step.shape, batch=clips))


def _more_cards(step: TrainingStep) -> Iterator[tuple[str, TrainingStep]]:
    for cards in range(step.gpus + 1, step.shape.batch + 1):
        if step.shape.batch % cards == 0:
            yield f"--gpus {cards}", replace(step, gpus=cards)


if __name__ == "__main__":
    sys.exit(main())
