"""Checkpoints: safetensors with, in the file's metadata, all that is needed to rebuild the network.

Those of the authors' code, safetensors or PyTorch files, are read as well: see _official.py.
"""

import hashlib
import json
import pickle
import platform
import re
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

import models
from models import _official
from records import replace_file

DTYPES = ("float32", "bfloat16", "float16")
PYTORCH_SUFFIXES = (".pt", ".pth", ".bin")
NESTS = ("state_dict", "ema", "model")
"""Under which of its keys a PyTorch file may hold the weights, the first that exists first."""
DAMAGE = (
    RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError, AssertionError,
)  # fmt: skip
"""What torch.load has been seen to raise on damaged files."""


@dataclass(frozen=True)
class Source:
    """Where a loaded model came from: file, its SHA-256, and the metadata in it."""

    file: Path
    sha256: str
    metadata: dict[str, Any]

    @property
    def videos(self) -> str:
        """What the model was trained on; ValueError where the file does not say."""
        return self._said(self.metadata.get("videos"))

    @property
    def frames(self) -> int:
        """Frames of the clips it was trained on; ValueError where the file does not say."""
        recipe = (self.metadata.get("training") or {}).get("recipe") or {}
        return self._said(recipe.get("frames"))

    def _said(self, value: Any) -> Any:
        if value is None:
            raise ValueError(f"{self.file} does not say what it was trained on; give --videos and --frames")
        return value


def write(path: Path, weights: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    """Weights and metadata as safetensors, atomically: the file is the old one or the new one, never half."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}

    def fill(partial: Path) -> None:
        save_file(tensors, partial, metadata={"framelens": json.dumps(metadata)})
        partial.chmod(0o644)  # safetensors makes files that only their owner can read

    replace_file(path, fill)


def read(path: Path, device: str, dtype: str, unsaid: dict[str, Any]) -> Any:
    """The network in that file, in evaluation mode, with a `source`.

    `unsaid` may bound the context of any of them (window, sink); the rest is for the authors' files.
    """
    check_device(device, dtype)
    reach = {name: unsaid[name] for name in ("window", "sink") if name in unsaid}
    unsaid = {name: value for name, value in unsaid.items() if name not in reach}
    metadata, weights = _open_pytorch(path) if path.suffix in PYTORCH_SUFFIXES else _open(path)
    if metadata is None:
        layout = _official.read_off(path, weights, unsaid)
        model, metadata = layout.model, layout.metadata
        _check(model, layout.weights, layout.names, path)
        filling = {name: layout.weights[theirs].float() for name, theirs in layout.names.items()}
        model.load_state_dict(filling, assign=True)
    else:
        model = _built(path, metadata, unsaid)
        _check(model, weights, {name: name for name in model.state_dict()}, path)
        model.load_state_dict(weights)
    model.config = replace(model.config, **reach)
    with path.open("rb") as file:
        model.source = Source(path, hashlib.file_digest(file, "sha256").hexdigest(), metadata)
    return model.to(device=device, dtype=getattr(torch, dtype)).eval().requires_grad_(False)


def _built(path: Path, metadata: dict[str, Any], unsaid: dict[str, Any]) -> Any:
    if unsaid:
        raise ValueError(f"{path} says its own configuration; it cannot be told {', '.join(unsaid)}")
    network = metadata.get("network")
    if network not in models.networks():
        raise ValueError(f"{path} holds a {network!r} network; supported are {', '.join(models.networks())}")
    try:
        return models.network(network).build(metadata["config"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: its configuration does not fit a {network} network: {error}") from None


def device_name(device: str) -> str:
    """The GPU's name, or the kind of processor."""
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.machine()


def check_device(device: str, dtype: str) -> None:
    """Raises ValueError unless this machine has the device and the dtype is one we run."""
    if dtype not in DTYPES:
        raise ValueError(f"unknown dtype {dtype!r}; there are {', '.join(DTYPES)}")
    try:
        kind = torch.device(device).type
    except RuntimeError:
        raise ValueError(f"unknown device {device!r}; try cpu, cuda or cuda:0") from None
    if kind not in ("cpu", "cuda"):
        raise ValueError(f"device {device!r} is not supported; there are cpu and cuda")
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"device {device!r} was asked for, but this machine has no CUDA GPU; use --device cpu"
        )
    index = torch.device(device).index
    if kind == "cuda" and index is not None and index >= torch.cuda.device_count():
        raise ValueError(f"device {device!r} does not exist; there are {torch.cuda.device_count()} CUDA GPUs")


def _open(path: Path) -> tuple[dict[str, Any] | None, dict[str, Tensor]]:
    """The metadata, None where there is none of ours, and the tensors."""
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
    """The tensors of a file of torch.save, without running what else may be in it."""
    with path.open("rb") as file:
        start = file.read(2)
    if start not in (b"PK", b"\x80\x02"):  # the archives of torch.save, and its files before torch 1.6
        what = "a plain pickle" if start[:1] == b"\x80" else f"it begins with {start!r}"
        raise ValueError(f"{path} is not a file of torch.save: {what}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of unusual pickles; what cannot be read is an error below
            held = torch.load(path, map_location="cpu", weights_only=True)
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
        "where you trust the file, load it yourself and save only its state dict"
    )


def _reason(error: object) -> str:
    """The first sentence of an error, in printable characters."""
    sentence = re.split(r"\. |\n", str(error).strip(), maxsplit=1)[0].strip()
    printable = "".join(character if character.isprintable() else "?" for character in sentence)
    return printable if " " in printable else f"{type(error).__name__} {printable}".strip()


def _tensors(path: Path, held: Any) -> dict[str, Tensor]:
    """The state dict in what a PyTorch file held."""
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


def _check(model: nn.Module, weights: dict[str, Tensor], names: dict[str, str], path: Path) -> None:
    """Raises ValueError unless the tensors are those of the model, each under the name that `names` gives."""
    expected = {names[name]: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    got = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    wrong = sorted(name for name in expected.keys() & got.keys() if expected[name] != got[name])
    if wrong:
        name = wrong[0]
        raise ValueError(f"{path}: {name} has shape {got[name]}, its configuration asks for {expected[name]}")
    missing, unexpected = sorted(expected.keys() - got.keys()), sorted(got.keys() - expected.keys())
    if missing or unexpected:
        raise ValueError(
            f"{path} is of another network: {len(missing)} tensors missing {missing[:10]}, "
            f"{len(unexpected)} unexpected {unexpected[:10]}"
        )
