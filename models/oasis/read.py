"""Oasis's checkpoints: sizes from shapes, checks, and our names of the weights.

A checkpoint stores the frequencies of its rotations once or several times, under the names of modules that
share them. If it stores none, they are computed as in the released code.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from framelens.models.loading.checkpoint import Checkpoint

MARKS = ("x_embedder.proj.weight", "external_cond.weight", "blocks.0.s_attn.to_qkv.weight")
HEAD = 64
"""Width of a head in the released network; used for a file without frequencies."""

_PARTS = {
    "x_embedder.proj": "embed",
    "t_embedder.mlp": "level",
    "external_cond": "action",
    "final_layer.linear": "unembed",
    "final_layer.adaLN_modulation.1": "modulation_out",
}
_HALVES = {"attn.to_qkv", "attn.to_out", "mlp.fc1", "mlp.fc2", "adaLN_modulation.1"}
_SHARED = {
    "space_frequencies": re.compile(r"(blocks\.\d+\.s_attn\.rotary_emb|spatial_rotary_emb)\.freqs"),
    "time_frequencies": re.compile(r"(blocks\.\d+\.t_attn\.rotary_emb|temporal_rotary_emb)\.freqs"),
}


def config_of(checkpoint: Checkpoint, options: Mapping[str, Any]) -> dict[str, Any]:
    """All values of a configuration; ValueError for sizes that do not fit together."""
    shapes = {name: tuple(tensor.shape) for name, tensor in checkpoint.weights.items()}
    try:
        width, channels, patch, _ = shapes["x_embedder.proj.weight"]
        mlp_width, actions = shapes["blocks.0.s_mlp.fc1.bias"][0], shapes["external_cond.weight"][1]
    except (KeyError, ValueError, IndexError) as error:
        raise ValueError(f"{checkpoint.path} is missing Oasis weights: {error}") from None
    times = [shape for name, shape in shapes.items() if _SHARED["time_frequencies"].fullmatch(name)]
    head = 2 * times[0][0] if times else HEAD
    numbers = {int(found[1]) for name in shapes if (found := re.match(r"blocks\.(\d+)\.", name))}
    height, width_of_frame = options["height"], options["width"]
    problems = {
        f"latents of {height} x {width_of_frame} do not divide into patches of {patch}":
            min(height, width_of_frame) < 1 or height % patch or width_of_frame % patch,
        f"width {width} must be a multiple of head width {head}, and that of 4": width % head or head % 4,
        f"max_frames is {options['max_frames']}, expected 2 or more": options["max_frames"] < 2,
        f"stabilization is {options['stabilization']}, expected 1 to 1000":
            not 1 <= options["stabilization"] <= 1000,
    }  # fmt: skip
    for problem, is_there in problems.items():
        if is_there:
            raise ValueError(f"{checkpoint.path}: {problem}")
    sizes = {"channels": channels, "patch": patch, "layers": 2 * (max(numbers) + 1), "heads": width // head}
    return {**sizes, "d_model": width, "mlp_width": mlp_width, "actions": actions, **options}


def shapes_of(checkpoint: Checkpoint, config: Any) -> dict[str, tuple[int, ...]]:
    """The expected shapes of a checkpoint with that configuration, by the names of the released code."""
    d, inner, patch = config.d_model, config.mlp_width, config.patch
    linears = {
        "t_embedder.mlp.0": (d, 256),
        "t_embedder.mlp.2": (d, d),
        "external_cond": (d, config.actions),
        "final_layer.linear": (patch**2 * config.channels, d),
        "final_layer.adaLN_modulation.1": (2 * d, d),
    }
    half = {"attn.to_out": (d, d), "mlp.fc1": (inner, d), "mlp.fc2": (d, inner)}
    half["adaLN_modulation.1"] = (6 * d, d)
    expected: dict[str, tuple[int, ...]] = {}
    for block in range(config.layers // 2):
        for kind in "st":
            linears |= {f"blocks.{block}.{kind}_{name}": shape for name, shape in half.items()}
            expected[f"blocks.{block}.{kind}_attn.to_qkv.weight"] = (3 * d, d)
    for name, shape in linears.items():
        expected |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    expected |= {"x_embedder.proj.weight": (d, config.channels, patch, patch), "x_embedder.proj.bias": (d,)}
    head = d // config.heads
    for name in checkpoint.weights:
        for shared, pattern in _SHARED.items():
            if pattern.fullmatch(name):
                expected[name] = (head // 4,) if shared == "space_frequencies" else (head // 2,)
    return expected


def rename(weights: Mapping[str, Tensor], config: Any) -> dict[str, Tensor]:
    """The weights under our names: block i's spatial half is layer 2i, its temporal half layer 2i + 1."""
    ours = _frequencies(config.d_model // config.heads)
    for name, tensor in weights.items():
        shared = [own for own, pattern in _SHARED.items() if pattern.fullmatch(name)]
        ours[shared[0] if shared else _ours(name)] = tensor
    return ours


def _ours(name: str) -> str:
    module, leaf = name.rsplit(".", 1)
    found = re.fullmatch(r"blocks\.(\d+)\.([st])_(.+)", module)
    if found and found[3] in _HALVES:
        layer = 2 * int(found[1]) + (found[2] == "t")
        return f"blocks.{layer}.{found[3].replace('adaLN_modulation.1', 'modulation')}.{leaf}"
    for theirs, own in _PARTS.items():
        if module.startswith(theirs):
            return f"{own}{module.removeprefix(theirs)}.{leaf}"
    raise AssertionError(f"{name} was not checked")


def _frequencies(head: int) -> dict[str, Tensor]:
    """Frequencies of rotations: within a frame evenly from pi to 128 pi, along time powers of 10000."""
    powers = torch.arange(0, head, 2) / head
    return {
        "space_frequencies": math.pi * torch.linspace(1, 128, head // 4),
        "time_frequencies": 10000.0**-powers,
    }
