"""Checkpoints: what a family file receives, where a model came from, and how our checkpoints are written."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from framelens.records.tensors import write_tensors

NAMED = 10
"""At most this number of tensors are named in a message."""


@dataclass(frozen=True)
class Checkpoint:
    """The weights of a network of another project, as they are stored on disk. A family file reads them."""

    path: Path
    """The file, or the folder with a configuration."""
    weights: dict[str, Tensor]
    """By their names in the file, without the parts that wrappers add to names."""
    config: dict[str, Any] | None = None
    """The folder's config.json; None for a bare file."""
    keys: tuple[str, ...] = ()
    """All keys of a PyTorch file whose weights are under one of them."""

    def check(self, expected: Mapping[str, tuple[int, ...]]) -> None:
        """Raises ValueError unless the tensors are the expected ones, by name and shape."""
        check_shapes(self.path, {n: tuple(t.shape) for n, t in self.weights.items()}, expected)


def write(path: Path, weights: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    """Writes weights and metadata as safetensors, atomically: the file is always the whole old or new one."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    write_tensors(path, save_file, tensors, metadata)


def check_shapes(
    path: Path, got: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]
) -> None:
    """Raises ValueError, which names the first differences, unless both have the same names and shapes."""
    wrong = sorted(name for name in expected.keys() & got.keys() if expected[name] != got[name])
    if wrong:
        name = wrong[0]
        raise ValueError(f"{path}: {name} has shape {got[name]}, its configuration needs {expected[name]}")
    missing, unexpected = sorted(expected.keys() - got.keys()), sorted(got.keys() - expected.keys())
    if missing or unexpected:
        raise ValueError(
            f"{path} is of another network: {len(missing)} tensors missing {_some(missing)}, "
            f"{len(unexpected)} unexpected {_some(unexpected)}"
        )


def _some(names: Iterable[str]) -> list[str]:
    return list(names)[:NAMED]
