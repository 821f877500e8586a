"""Loads a model from its place, for every kind of file.

A family file (a public file of models/) names the diffusers classes that it reads (CLASSES), recognises bare
state dicts, holds defaults of what such a checkpoint does not store (DEFAULTS), and has
`read(checkpoint, options) -> (model, metadata)`.
"""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from framelens import models
from framelens.diffusion.contract import CausalDiffuser, module_of, traits
from framelens.diffusion.schedule import Sampling
from framelens.diffusion.source import Source
from framelens.models.loading.adapter import make_model
from framelens.models.loading.checkpoint import SHARD_INDEX, Checkpoint
from framelens.models.loading.devices import AUTO, check_device, first_device
from framelens.models.loading.files import files_of, read_file, read_folder, read_shards
from framelens.models.loading.finite import require_finite_config, require_finite_weights
from framelens.models.loading.locate import Place
from framelens.models.loading.memory import require_memory
from framelens.models.loading.multi_device import spread
from framelens.models.loading.own import InHalves, build_own, fill
from framelens.models.loading.shuffled import shuffle
from framelens.models.loading.stored_types import UNQUANTISED, check_types
from framelens.models.loading.weights import hash_weights
from framelens.records import read_json_object
from framelens.records.assignments import convert
from framelens.records.notes import print_note

REACH = ("window", "sink")
"""Options of every network whose history can be bounded."""
EXPERTS = {"high": "transformer", "low": "transformer_2"}
"""The folders of a pipeline that has one network for high and one for low noise levels."""
GUIDE = "another network comes through an adapter, file.py:function (the guide is models/README.md)"
RequireRoom = Callable[[list[Path]], None]
"""Raises ValueError if the tensors in these files do not fit the device."""


def read(
    place: Place, device: str, dtype: str, asked: dict[str, Any], copies: int = 1, seed: int | None = None
) -> CausalDiffuser:
    """The model at that place, in evaluation mode, with a `source`. Raises ValueError or OSError.

    The device must have room for `copies` copies of the weights before they are read. With a `seed`, the
    weights are shuffled (models/loading/shuffled.py).
    """
    check_device(first_device(device), dtype)
    if place.kind == "hub":
        from framelens.models.loading.hub import fetch

        place = fetch(place, lambda folder: _kind_of(_network_folder(folder, asked)))
    reader = {"adapter": _from_adapter, "folder": _from_folder, "file": _from_file}[place.kind]
    model, source = reader(
        place, asked, lambda files: require_memory(place.name, files, device, dtype, copies)
    )
    model.source = replace(source, repo=place.repo, revision=place.revision)
    _convert(model, getattr(torch, dtype))
    require_finite_weights(place.name, module_of(model))
    if seed is not None:
        shuffle(module_of(model).requires_grad_(False), seed)
    model.source = replace(model.source, weights=hash_weights(module_of(model)))
    _put_on_device(model, device)
    module_of(model).eval().requires_grad_(False)
    return model


def _convert(model: CausalDiffuser, dtype: torch.dtype) -> None:
    """Converts the weights in place. Tensors named in `keeps_float32` are float32 unless they are wider."""
    exact, module = traits(model).keeps_float32, module_of(model)
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if tensor.is_floating_point():
            narrow = tensor.dtype.itemsize < torch.float32.itemsize
            wider = torch.float32 if narrow else tensor.dtype
            tensor.data = tensor.data.to(wider if any(part in name for part in exact) else dtype)


def _put_on_device(model: CausalDiffuser, device: str) -> None:
    """Puts the model on its device or devices."""
    module = module_of(model)
    if device == AUTO:
        spread(model)
    else:
        module.to(device)


def _from_file(place: Place, asked: dict[str, Any], require_room: RequireRoom) -> tuple[Any, Source]:
    path = place.path
    require_room([path])
    metadata, weights, keys = read_file(path)
    check_types(path, weights)
    if metadata is None:
        model, metadata = _by_family(_recognising(path, weights), Checkpoint(path, weights, keys=keys), asked)
    else:
        model = _own(path, metadata, weights, asked)
    return model, Source(path, _hash([path]), metadata)


def _own(path: Path, metadata: dict[str, Any], weights: dict[str, Any], asked: dict[str, Any]) -> Any:
    """The model of one of our checkpoints."""
    reach, others = _reach(asked, {})
    if others:
        raise ValueError(f"{path} stores its own configuration, so it takes no option {', '.join(others)}")
    model = build_own(path, metadata)
    fill(path, model, weights)
    half = model
    bounded = half.reads_past if isinstance(half, InHalves) else half
    bounded.config = _limit_history(bounded.config, path, reach)
    model.latent = bool(metadata.get("latent"))
    if "sampling" in metadata:
        model.sampling = Sampling.from_values(metadata["sampling"])
    return model


def _by_family(
    family: ModuleType, checkpoint: Checkpoint, asked: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    reach, others = _reach(asked, family.DEFAULTS)
    model, metadata = family.read(checkpoint, complete_options(checkpoint.path, family, others))
    model.config = _limit_history(traits(model).config, checkpoint.path, reach)
    if "assumed" in metadata:
        stated = ", ".join(f"{name} {value}" for name, value in metadata["assumed"].items())
        print_note(f"{checkpoint.path}: assumed {stated}; --set NAME=VALUE changes it")
    return model, metadata


def _reach(asked: dict[str, Any], unsaid: dict[str, Any]) -> tuple[dict[str, int], dict[str, Any]]:
    """The options that bound the history, if the family does not define them; and all other options."""
    reach = {name: convert(name, asked[name], int) for name in REACH if name in asked and name not in unsaid}
    return reach, {name: value for name, value in asked.items() if name not in reach}


def _limit_history(config: Any, path: Path, reach: dict[str, int]) -> Any:
    """The configuration with another history in view; ValueError where it has none to bound."""
    if reach and not hasattr(config, "reach"):
        raise ValueError(f"{path}: the history of such a network cannot be bounded by {', '.join(reach)}")
    return replace(config, **reach) if reach else config


def _from_folder(place: Place, asked: dict[str, Any], require_room: RequireRoom) -> tuple[Any, Source]:
    folder = _network_folder(place.path, asked)
    if (folder / SHARD_INDEX).exists() and not (folder / "config.json").exists():
        return _from_shards(folder, asked, require_room)
    config, family = _kind_of(folder)
    complete_options(folder, family, _reach(asked, family.DEFAULTS)[1])  # before gigabytes are read
    require_room(files_of(folder))
    weights = read_folder(folder)
    check_types(folder, weights)
    model, metadata = _by_family(family, Checkpoint(folder, weights, config), asked)
    return model, Source(folder, _hash(files_of(folder)), metadata)


def _from_shards(folder: Path, asked: dict[str, Any], require_room: RequireRoom) -> tuple[Any, Source]:
    """The model of one of our checkpoints in several files."""
    files = files_of(folder)
    require_room(files)
    metadata, weights = read_shards(folder, files)
    check_types(folder, weights)
    return _own(folder, metadata, weights, asked), Source(folder, _hash(files), metadata)


def _kind_of(folder: Path) -> tuple[dict[str, Any], ModuleType]:
    """The configuration of a folder and the family that reads it. ValueError, with its kind, if none does."""
    known = {name: family for family in families().values() for name in family.CLASSES}
    index = _read_if_there(folder.parent / "model_index.json")
    if not (folder / "config.json").exists():
        what = f"{folder.parent} is a {index.get('_class_name')} without a network in {folder.name}/"
        what = what if index else f"{folder} has no config.json, so it is not a model in diffusers' layout"
        raise FileNotFoundError(f"{what}; supported are {', '.join(sorted(known))}")
    config = read_json_object(folder / "config.json")
    require_finite_config(folder / "config.json", config)
    if config.get("quantization_config"):
        raise ValueError(f"{folder}: its config.json says that the weights are quantised; {UNQUANTISED}")
    kind = next((k for k in (config.get("_class_name"), *(config.get("architectures") or ())) if k), None)
    if kind not in known:
        kind = kind or config.get("model_type") or "model of a kind that its config.json does not store"
        raise ValueError(f"{folder} is a {kind}; supported are {', '.join(sorted(known))}; {GUIDE}")
    return config, known[kind]


def _read_if_there(file: Path) -> dict[str, Any]:
    """The content of a JSON file; empty if the file does not exist."""
    return read_json_object(file) if file.exists() else {}


def _network_folder(folder: Path, asked: dict[str, Any]) -> Path:
    """The folder of the network: a part of a pipeline, or the folder itself."""
    if (folder / "model_index.json").exists():
        return folder / EXPERTS.get(str(asked.get("expert")), "transformer")
    return folder


def _from_adapter(place: Place, asked: dict[str, Any], _: RequireRoom) -> tuple[Any, Source]:
    """The model that a function of the user's file returns. The file is code, and it is run."""
    model, code = make_model(place, asked)
    metadata = {"network": place.label, "origin": str(place.path)} | dict(traits(model).metadata)
    return model, Source(place.path, _hash([place.path]), metadata, code=code)


def families() -> dict[str, ModuleType]:
    """The families that read checkpoints of other projects, by name."""
    return {name: models.network(name) for name in models.families()}


def _recognising(path: Path, weights: dict[str, Any]) -> ModuleType:
    for family in families().values():
        if family.recognises(weights.keys()):
            return family
    raise ValueError(
        f"{path} is neither a framelens checkpoint nor one of {', '.join(models.families())}: it holds "
        f"{sorted(weights)[:10]}; {GUIDE}"
    )


def complete_options(path: Path, family: ModuleType, asked: dict[str, Any]) -> dict[str, Any]:
    """The family's options: the requested values, else its defaults.

    Raises ValueError for an unknown option, and for a value of another type. Text is converted.
    """
    name = family.__name__.rpartition(".")[2]
    unknown = sorted(asked.keys() - family.DEFAULTS.keys())
    if unknown:
        raise ValueError(
            f"{path} is a checkpoint of the {name} family and has no option {', '.join(unknown)}; its "
            f"options are {', '.join(family.DEFAULTS)}"
        )
    return family.DEFAULTS | {
        option: convert(option, value, _type_of(family.DEFAULTS[option])) for option, value in asked.items()
    }


def _type_of(default: Any) -> type | None:
    """The type that a value must have; None, for any type, if the default is None."""
    return None if default is None else type(default)


def _hash(files: list[Path]) -> str:
    """The SHA-256 of the file, or of the hashes of several files in their order."""
    sums = []
    for path in files:
        with path.open("rb") as file:
            sums.append(hashlib.file_digest(file, "sha256").hexdigest())
    return sums[0] if len(sums) == 1 else hashlib.sha256("".join(sums).encode()).hexdigest()
