"""The network of a recipe, built before anything is written.

model = build(recipe("dense-tiles"))        # ValueError for a recipe whose network cannot be built
"""

from dataclasses import fields
from types import ModuleType
from typing import Any, get_type_hints

import torch
from torch import nn

from framelens import models
from framelens.diffusion.contract import CausalDiffuser, module_of, traits
from framelens.models.dense import Dense
from framelens.models.loading.memory import require_room_for_clips
from framelens.models.parts.layered import RecomputedBlocks
from framelens.models.scd import SCD
from framelens.models.separated import SeparatedNetwork
from framelens.models.variants.cut import layers_from
from framelens.models.variants.recomposed import recompose
from framelens.models.variants.separated import separate
from framelens.records.assignments import convert
from framelens.records.checks import suggest
from framelens.training.adapters import add_adapters
from framelens.training.recipes import CONTINUED, LAYERS, SEPARATED, Recipe
from framelens.training.source import open_source


def build(recipe: Recipe, device: str = "cpu") -> CausalDiffuser:
    """The recipe's network, initialised from its seed and shaped for its videos, on that device."""
    if recipe.network == SEPARATED:
        model = _separate_initial(recipe)
    elif recipe.network == CONTINUED:
        model = _continue_initial(recipe)
    elif recipe.network not in models.networks():
        raise ValueError(f"no network is called {recipe.network!r}; there are {', '.join(models.networks())}")
    else:
        model = _build_network(models.network(recipe.network), recipe)
        if recipe.initial:
            _load_initial_weights(model, recipe)
    if recipe.cut_from is not None:
        _check_cut(model, recipe.cut_from)
    if recipe.train_only:
        _freeze_others(model, recipe)
    if recipe.lora_rank:
        add_adapters(
            module_of(model), recipe.lora_rank, recipe.lora_alpha, recipe.seed, part=recipe.train_only
        )
    recomputed = [part for part in module_of(model).modules() if isinstance(part, RecomputedBlocks)]
    if recipe.recompute and not recomputed:
        raise ValueError(f"recompute=true: the blocks of a {recipe.network} network cannot be recomputed")
    for part in recomputed:
        part.recompute = recipe.recompute
    module_of(model).to(device)
    return model


def _open_with_room(recipe: Recipe) -> Any:
    """The recipe's videos; ValueError where a batch of them does not fit in memory."""
    source, draws = open_source(recipe.videos), max(1, recipe.noise_draws)
    require_room_for_clips(recipe.batch * draws, recipe.frames, source.SHAPE, "--batch")
    return source


def _build_network(network: ModuleType, recipe: Recipe) -> Any:
    """The network with fresh weights; ValueError where the recipe's architecture does not fit it."""
    world = _open_with_room(recipe)
    channels, height, width = world.SHAPE
    tokens, text_width = getattr(world, "PROMPT", (0, 0))
    shape = {"channels": channels, "height": height, "width": width, "conditions": world.CONDITIONS}
    shape |= {"text_tokens": tokens, "text_width": text_width}
    _check_architecture(network, recipe, shape)
    kinds = get_type_hints(network.Config)
    asked = {name: convert(name, value, kinds[name]) for name, value in recipe.architecture.items()}
    network.config(recipe.preset)  # an unknown preset says so itself
    try:
        config = network.config(recipe.preset, **shape | asked)
        torch.manual_seed(recipe.seed)
        return network.build(config)
    except (TypeError, ValueError, ZeroDivisionError, RuntimeError) as error:
        changes = ", ".join(f"{name}={value}" for name, value in asked.items())
        raise ValueError(f"a {recipe.network} network cannot have {changes}: {error}") from None


def _separate_initial(recipe: Recipe) -> Any:
    """The initial model in two parts, to be trained; ValueError where the recipe's layers do not fit it."""
    known = (*LAYERS, "fusion", "query")
    wrong = [name for name in recipe.architecture if name not in known]
    if wrong or not {*LAYERS[:2]} <= recipe.architecture.keys():
        raise ValueError(f"a separated network has {', '.join(known)}, got {', '.join(recipe.architecture)}")
    how: dict[str, Any] = {
        name: str(recipe.architecture[name]) for name in known[3:] if name in recipe.architecture
    }
    layers = tuple(convert(name, recipe.architecture.get(name, 0), int) for name in LAYERS)
    encoder, decoder, head = layers
    initial = _open_initial(recipe)
    g = initial.geometry
    if isinstance(initial, SeparatedNetwork):  # goes on, or is distilled
        has = (len(initial.encoder.blocks), len(initial.decoder.blocks), len(initial.layers.head))
        has_how = {name: value for name, value in vars(initial.how).items() if name in how}
        if has != layers or has_how != how:
            own, asked = (*has, *has_how.values()), (*layers, *how.values())
            raise ValueError(f"{recipe.initial} has {', '.join(LAYERS)} {own}, the recipe {asked}")
        return initial.requires_grad_(True).train()
    tail = range(g.layers - decoder + head, g.layers)
    model = separate(initial, encoder=range(encoder), head=range(head), tail=tail, **how)
    _require_trained(module_of(model), recipe)
    if traits(model).teacher_forced is None:
        raise ValueError(
            f"{recipe.initial} cannot be trained separated: its layers do not run over whole clips (of "
            "AnyFlow and FAR-Long the past becomes coarse as a clip goes on, and recent keys change with it)"
        )
    module_of(model).requires_grad_(True).train()
    return model


def _continue_initial(recipe: Recipe) -> Any:
    """The initial model as it is, to be trained on; ValueError where it cannot be."""
    model = _open_initial(recipe)
    if recipe.architecture:
        raise ValueError(
            f"{recipe.initial} is trained on as it is, without {', '.join(recipe.architecture)}: "
            "choose another recipe to change its layers"
        )
    if traits(model).teacher_forced is None or traits(model).describe is None:
        raise ValueError(f"{recipe.initial} cannot be trained on: it has no teacher_forced or no describe")
    return module_of(model).requires_grad_(True).train()


def _open_initial(recipe: Recipe) -> Any:
    """The initial model of a recipe without a network of its own; ValueError where the videos do not fit."""
    if not recipe.initial:
        raise ValueError(f"a {recipe.network} network is made of a trained one: give initial=...")
    shape, initial = _open_with_room(recipe).SHAPE, models.load(recipe.initial)
    g = initial.geometry
    if tuple(shape) != (g.channels, g.height, g.width):
        raise ValueError(
            f"{recipe.initial} takes frames of {(g.channels, g.height, g.width)} (channels, height, width), "
            f"{recipe.videos} has {tuple(shape)}"
        )
    return initial


def _check_architecture(network: ModuleType, recipe: Recipe, shape: dict[str, Any]) -> None:
    """ValueError for a name that the network does not have, or that the videos decide."""
    known = [field.name for field in fields(network.Config) if field.name not in shape]
    for name in recipe.architecture:
        if name in shape:
            raise ValueError(f"{name} is decided by the videos, {recipe.videos}: choose others by videos=")
        if name not in known:
            near = suggest(name, [*known, *(field.name for field in fields(Recipe))])
            raise ValueError(
                f"neither a recipe nor a {recipe.network} network has {name}{near}; networks have "
                f"{', '.join(known)}"
            )


def _load_initial_weights(model: CausalDiffuser, recipe: Recipe) -> None:
    """Gives the model the weights of the recipe's initial model, a separated one those of a dense network.

    ValueError where they have other shapes.
    """
    initial = models.load(recipe.initial)
    if isinstance(model, SCD) and isinstance(initial, Dense):
        recompose(model, initial)
        _require_trained(model, recipe)
        return
    weights = module_of(initial).state_dict()
    own = module_of(model).state_dict()
    other = [name for name in own.keys() | weights if name not in own or name not in weights]
    other += [name for name in own.keys() & weights if own[name].shape != weights[name].shape]
    if other:
        raise ValueError(
            f"{recipe.initial} is another network than the recipe's: {sorted(other)[:10]} differ"
        )
    module_of(model).load_state_dict(weights)


def _require_trained(model: nn.Module, recipe: Recipe) -> None:
    """ValueError where adapters alone are trained and the network has weights that its initial one lacks."""
    fresh = [name for name, _ in model.named_parameters() if not name.startswith(("encoder.", "decoder."))]
    if recipe.lora_rank and fresh:
        raise ValueError(
            f"lora_rank={recipe.lora_rank} trains adapters alone, but {', '.join(fresh)} would stay random: "
            "choose another fusion or query, or lora_rank=0"
        )


def _freeze_others(model: CausalDiffuser, recipe: Recipe) -> None:
    """Leaves gradients to the part that is trained; ValueError where the network has no such part."""
    weights = dict(module_of(model).named_parameters())
    if not any(name.startswith(f"{recipe.train_only}.") for name in weights):
        raise ValueError(f"train_only={recipe.train_only}: a {recipe.network} network has no such part")
    for name, weight in weights.items():
        weight.requires_grad_(name.startswith(f"{recipe.train_only}."))


def _check_cut(model: CausalDiffuser, cut_from: int) -> None:
    """ValueError where the model does not have the layers to cut."""
    try:
        layers_from(model, cut_from)
    except ValueError as error:
        raise ValueError(f"cut_from={cut_from}: {error}; cut_from=null trains without a cut") from None
