"""Reads the tensors of checkpoint files: safetensors, whole or in shards, and files of torch.save.

No code in a file is run.
"""

import json
import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

PYTORCH_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt")
NESTS = ("generator_ema", "generator", "state_dict", "ema", "model")
"""The keys under which a PyTorch file may hold the weights. The first key that exists is used."""
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


def read_file(path: Path) -> tuple[dict[str, Any] | None, dict[str, Tensor]]:
    """The framelens metadata of a file, None if it has none, and its tensors by their bare names.

    Raises ValueError, in one line, for a file that is damaged or holds other things than tensors.
    """
    metadata, weights = _open_pytorch(path) if path.suffix in PYTORCH_SUFFIXES else _open(path)
    return metadata, weights if metadata is not None else bare(weights)


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
        named = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    except (json.JSONDecodeError, KeyError, AttributeError, TypeError) as error:
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


def bare(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors by names without the parts that wrappers and prefixes add."""
    for wrapper in WRAPPERS:
        weights = {name.replace(wrapper, ""): tensor for name, tensor in weights.items()}
    for prefix in PREFIXES:
        if weights and all(name.startswith(prefix) for name in weights):
            weights = {name.removeprefix(prefix): tensor for name, tensor in weights.items()}
    return weights


def _open(path: Path) -> tuple[dict[str, Any] | None, dict[str, Tensor]]:
    """The framelens metadata, None if there is none, and the tensors."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file: {error}") from None
    if "framelens" not in metadata:
        return None, weights
    try:
        return json.loads(metadata["framelens"]), weights
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: its framelens metadata is damaged: {error}") from None


def _open_pytorch(path: Path) -> tuple[None, dict[str, Tensor]]:
    """The tensors of a file of torch.save. Code in the file is not run."""
    with path.open("rb") as file:
        start = file.read(2)
    if start not in (b"PK", b"\x80\x02"):  # archives of torch.save, and files from before torch 1.6
        what = "a plain pickle" if start[:1] == b"\x80" else f"it begins with {start!r}"
        raise ValueError(f"{path} is not a file of torch.save: {what}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about unusual pickles; unreadable ones raise below
            held = torch.load(path, map_location="cpu", weights_only=True, mmap=start == b"PK")
    except pickle.UnpicklingError as error:
        raise ValueError(_why_refused(path, str(error))) from None
    except DAMAGE as error:
        raise ValueError(f"{path} is not a whole PyTorch file: {_reason(error)}") from None
    return None, _tensors(path, held)


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


def _tensors(path: Path, held: Any) -> dict[str, Tensor]:
    """The state dict inside the content of a PyTorch file."""
    while isinstance(held, dict) and any(isinstance(held.get(nest), dict) for nest in NESTS):
        held = next(held[nest] for nest in NESTS if isinstance(held.get(nest), dict))
    if not isinstance(held, dict):
        raise ValueError(f"{path} holds a {type(held).__name__}, expected a dict from names to tensors")
    others = [str(k) for k, v in held.items() if not isinstance(k, str) or not isinstance(v, Tensor)]
    if others:
        raise ValueError(
            f"{path} holds more than tensors: {others[:10]}; expected a dict from names to tensors, or one "
            f"under {', '.join(NESTS)}"
        )
    return held
