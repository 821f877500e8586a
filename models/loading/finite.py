"""Weights and configurations that are not numbers, found when a model is opened.

require_finite_weights("dense.safetensors", model)          # ValueError for NaN or infinity
require_finite_config(path, {"rope_theta": float("nan")})
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

NAMED = 10
"""At most this number of weights are named in a message."""


def require_finite_weights(name: str, network: nn.Module) -> None:
    """Raises ValueError, which names them, if weights are NaN or infinite in the dtype that they have."""
    bad = find_bad_weights(network)
    if bad:
        dtype = str(network.get_parameter(bad[0]).dtype).removeprefix("torch.")
        more = f" and {len(bad) - NAMED} more" if len(bad) > NAMED else ""
        raise ValueError(
            f"{name} has weights that are not finite (NaN or infinity) in {dtype}: {', '.join(bad[:NAMED])}"
            f"{more}; {'try --dtype float32' if dtype == 'float16' else 'give a whole copy of the weights'}"
        )


def find_bad_weights(network: nn.Module) -> list[str]:
    """The names of the weights that are NaN or infinite somewhere. Buffers may be: masks are."""
    return [name for name, weight in network.named_parameters() if not _is_finite(weight)]


def require_finite_config(path: Path, config: Any) -> None:
    """Raises ValueError, which names the first, if a number of a configuration is NaN or infinite."""
    for name, value in _numbers("", config):
        if not math.isfinite(value):
            raise ValueError(f"{path}: its configuration has {name}={value}; expected a finite number")


@torch.no_grad()
def _is_finite(weight: torch.Tensor) -> bool:
    """Whether all numbers are finite; the extremes of a tensor with a NaN are NaN."""
    if not weight.is_floating_point() or weight.is_meta or weight.numel() == 0:
        return True
    return all(math.isfinite(extreme.item()) for extreme in torch.aminmax(weight))


def _numbers(name: str, value: Any) -> Iterator[tuple[str, float]]:
    """Every float of nested mappings and lists with its name, as rope.theta or sizes[0]."""
    if isinstance(value, float):
        yield name, value
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from _numbers(f"{name}.{key}".strip("."), part)
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield from _numbers(f"{name}[{index}]", part)
