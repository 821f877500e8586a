"""Checkpoints: safetensors with, in the file's metadata, all that is needed to rebuild the network."""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

import models

DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Source:
    """Where a loaded model came from: file, its SHA-256, and the metadata in it."""

    file: Path
    sha256: str
    metadata: dict[str, Any]


def write(path: Path, weights: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    """Weights and metadata as safetensors, atomically: the file is the old one or the new one, never half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
        save_file(tensors, partial, metadata={"framelens": json.dumps(metadata)})
        partial.chmod(0o644)  # safetensors makes files that only their owner can read
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def read(path: Path, device: str, dtype: str) -> Any:
    """The network in that file, in evaluation mode, with a `source`."""
    check_device(device, dtype)
    metadata, weights = _open(path)
    network = metadata.get("network")
    if network not in models.networks():
        raise ValueError(f"{path} holds a {network!r} network; supported are {', '.join(models.networks())}")
    try:
        model = models.network(network).build(metadata["config"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: its configuration does not fit a {network} network: {error}") from None
    _fill(model, weights, path)
    model.source = Source(path, hashlib.sha256(path.read_bytes()).hexdigest(), metadata)
    return model.to(device=device, dtype=getattr(torch, dtype)).eval().requires_grad_(False)


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


def _open(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file: {error}") from None
    if "framelens" not in metadata:
        raise ValueError(
            f"{path} is a safetensors file, but not a framelens checkpoint: it has no framelens metadata"
        )
    try:
        return json.loads(metadata["framelens"]), weights
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: its framelens metadata is damaged: {error}") from None


def _fill(model: nn.Module, weights: dict[str, Tensor], path: Path) -> None:
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
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
    model.load_state_dict(weights)
