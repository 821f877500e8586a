"""Reads the tensors of checkpoint files: safetensors, whole or in shards, and files of torch.save.

No code in a file is run.
"""

import json
import pickle
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from framelens.records import read_json_object
from framelens.records.notes import print_note
from framelens.records.untrusted import require_honest_zip, require_kind

PYTORCH_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt")
NESTS = ("generator_ema", "generator", "state_dict", "ema", "model", "shadow")
"""The keys under which a PyTorch file may hold the weights. The first that holds only tensors is read."""
DEEPEST = 4
"""Keys that lead to the weights, at most: a dict may contain itself."""
WRAPPERS = ("_fsdp_wrapped_module.", "_checkpoint_wrapped_module.", "_orig_mod.")
"""Sharding, recomputation and compilation add these to names."""
PREFIXES = ("module.", "model.diffusion_model.", "model.")
"""Every name of a network begins with one of these if the network was saved as part of another."""
FOLDER_FILES = ("diffusion_pytorch_model", "model")
WHOLE = (".safetensors", ".bin")
"""Suffixes of a file that holds all weights of a folder."""
DAMAGE = (
    RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError, AssertionError,
)  # fmt: skip
"""Errors that torch.load raises for damaged files."""


class Content(NamedTuple):
    """What a file holds."""

    metadata: dict[str, Any] | None
    """The framelens metadata; None for a file of another project."""
    weights: dict[str, Tensor]
    keys: tuple[str, ...] = ()
    """All keys of the file, if the weights are under one of them."""


def read_file(path: Path) -> Content:
    """The framelens metadata of a file, its tensors by their bare names, and the keys beside them.

    Raises ValueError, in one line, for a file that is damaged or holds other things than tensors.
    """
    require_kind(path)
    content = _open_pytorch(path) if path.suffix in PYTORCH_SUFFIXES else _open(path)
    return content if content.metadata is not None else content._replace(weights=bare(content.weights))


def files_of(folder: Path) -> list[Path]:
    """The files that hold the weights of a diffusers folder; a variant such as fp16 if there is nothing else.

    FileNotFoundError if there are none, or if a shard is missing.
    """
    for stem in FOLDER_FILES:
        indices = sorted(folder.glob(f"{stem}.*index*.json"), key=_variants_last)
        singles = [
            file for file in folder.glob(f"{stem}.*") if file.suffix in WHOLE and "-of-" not in file.name
        ]
        found = sorted([*indices, *singles], key=_variants_last)
        if found:
            return _shards(found[0]) if found[0].suffix == ".json" else found[:1]
        shards = sorted(folder.glob(f"{stem}*-of-*.safetensors"))
        if shards:
            raise FileNotFoundError(
                f"{folder} has shards of its weights, as {shards[0].name}, but not the index that names them "
                f"all, {stem}.safetensors.index.json"
            )
    raise FileNotFoundError(f"{folder} has no weights; expected {FOLDER_FILES[0]}.safetensors or its shards")


def _variants_last(file: Path) -> tuple[int, bool, str]:
    """A sort key: plain names come before names with a variant, safetensors before other files."""
    words = [word for word in file.name.split(".") if word not in ("index", "json")]
    return len(words), "safetensors" not in words, file.name


def _shards(index: Path) -> list[Path]:
    try:
        named = sorted(set(read_json_object(index)["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"{index} is not a shard index: {type(error).__name__} {error}") from None
    outside = [shard for shard in named if Path(shard).name != shard]
    if outside:
        raise ValueError(f"{index} names {outside[0]}, which is not beside it")
    missing = [shard for shard in named if not (index.parent / shard).exists()]
    if missing:
        raise FileNotFoundError(f"{index.parent} lacks {', '.join(missing)}, which {index.name} names")
    return [index.parent / shard for shard in named]


def read_folder(folder: Path) -> dict[str, Tensor]:
    """The tensors of a diffusers folder, from all its shards."""
    weights: dict[str, Tensor] = {}
    for file in files_of(folder):
        weights |= read_file(file)[1]
    return weights


def read_shards(folder: Path, files: list[Path]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The framelens metadata and the tensors of a checkpoint in several files of a folder.

    ValueError for files that are not of one checkpoint.
    """
    contents = [read_file(file) for file in files]
    metadata = contents[0].metadata
    if metadata is None or any(content.metadata != metadata for content in contents):
        raise ValueError(
            f"{folder} has shards without a config.json: they are not those of one framelens model"
        )
    return metadata, {name: tensor for content in contents for name, tensor in content.weights.items()}


def bare(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors by names without the parts that wrappers and prefixes add."""
    for wrapper in WRAPPERS:
        weights = {name.replace(wrapper, ""): tensor for name, tensor in weights.items()}
    for prefix in PREFIXES:
        if weights and all(name.startswith(prefix) for name in weights):
            weights = {name.removeprefix(prefix): tensor for name, tensor in weights.items()}
    return weights


def _open(path: Path) -> Content:
    """The framelens metadata, None if there is none, and the tensors."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file: {error}") from None
    if "framelens" not in metadata:
        return Content(None, weights)
    try:
        held = json.loads(metadata["framelens"])
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: its framelens metadata is damaged: {error}") from None
    if not isinstance(held, dict):
        raise ValueError(f"{path}: its framelens metadata is a {type(held).__name__}, expected an object")
    return Content(held, weights)


def _open_pytorch(path: Path) -> Content:
    """The tensors of a file of torch.save. Code in the file is not run."""
    with path.open("rb") as file:
        start = file.read(2)
    if start not in (b"PK", b"\x80\x02"):  # archives of torch.save, and files from before torch 1.6
        what = "a plain pickle" if start[:1] == b"\x80" else f"it begins with {start!r}"
        raise ValueError(f"{path} is not a file of torch.save: {what}")
    if start == b"PK":
        require_honest_zip(path, compressed=False)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about unusual pickles; unreadable ones raise below
            held = torch.load(path, map_location="cpu", weights_only=True, mmap=start == b"PK")
    except pickle.UnpicklingError as error:
        raise ValueError(_why_refused(path, str(error))) from None
    except DAMAGE as error:
        raise ValueError(f"{path} is not a whole PyTorch file: {_reason(error)}") from None
    return Content(None, *_choose_weights(path, held))


def _why_refused(path: Path, error: str) -> str:
    code = re.search(r"(?:GLOBAL|class) ([\w.]+)", error)
    if code is None:
        return f"{path} is not a whole PyTorch file: {_reason(error.split('WeightsUnpickler error:')[-1])}"
    return (
        f"{path} holds {code[1]} beside tensors: reading it would run code from the file, so it is refused; "
        "if you trust the file, load it yourself and save only its state dict"
    )


def _reason(error: object) -> str:
    """The first sentence of an error, in printable characters."""
    sentence = re.split(r"\. |\n", str(error).strip(), maxsplit=1)[0].strip()
    printable = "".join(character if character.isprintable() else "?" for character in sentence)
    return printable if " " in printable else f"{type(error).__name__} {printable}".strip()


def _choose_weights(path: Path, held: Any) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The state dict inside the content of a PyTorch file, and the keys that the file has beside it."""
    if not isinstance(held, dict):
        raise ValueError(f"{path} holds a {type(held).__name__}, expected a dict from names to tensors")
    places = list(_places(held))
    whole = [(place, weights) for place, weights in places if weights and not _others(weights)]
    if not whole:
        raise ValueError(f"{path} {_why_no_weights(places)}")
    place, weights = whole[0]
    if len(places) > 1:
        unused = [f"{other} ({_describe(found)})" for other, found in places if other != place]
        print_note(f"{path}: the weights under {place} are read, not {', '.join(unused)}")
    return weights, tuple(str(key) for key in held) if place else ()


def _places(held: dict[Any, Any], place: tuple[str, ...] = ()) -> Iterator[tuple[str, dict[Any, Any]]]:
    """Where weights may be: keys joined by dots, and the dict there, in order of preference."""
    inner = [nest for nest in NESTS if isinstance(held.get(nest), dict)] if len(place) < DEEPEST else []
    for nest in inner:
        yield from _places(held[nest], (*place, nest))
    if not inner:
        yield ".".join(place), held


def _others(held: dict[Any, Any]) -> list[str]:
    """The keys of what is not a named tensor."""
    return [str(k) for k, v in held.items() if not isinstance(k, str) or not isinstance(v, Tensor)]


def _describe(held: dict[Any, Any]) -> str:
    return f"holds {_others(held)[:3]}" if _others(held) else "also whole" if held else "empty"


def _why_no_weights(places: list[tuple[str, dict[Any, Any]]]) -> str:
    """The end of a message about a file in which no dict holds only tensors."""
    where, held = next(((where, held) for where, held in places if held), places[0])
    if not held:
        return f"holds no weights: {', '.join(where for where, _ in places) or 'it'} is empty"
    within = f" in {where}" if where else ""
    return (
        f"holds more than tensors{within}: {_others(held)[:10]}; expected a dict from names to tensors, or "
        f"one under {', '.join(NESTS)}, nested {DEEPEST} times at most"
    )
