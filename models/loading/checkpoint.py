"""Checkpoints: what a family file receives, where a model came from, and how our checkpoints are written."""

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from framelens.records import write_json
from framelens.records.extras import extra
from framelens.records.tensors import write_tensors

SHARDS, SHARD_INDEX = "model{suffix}.safetensors", "model.safetensors.index.json"
"""Names of the files of a network in shards, and of their index, as transformers and diffusers have them."""
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


def write_shards(folder: Path, weights: dict[str, Tensor], metadata: dict[str, Any], size: int | str) -> None:
    """Writes weights as files of at most that size ("5GB") and an index of them into a new folder.

    Each file has the metadata. The folder appears whole. ValueError for a folder that holds something, and
    for a size that is none.
    """
    with extra("families"):
        from huggingface_hub import split_torch_state_dict_into_shards

    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ValueError(f"{folder} exists: shards are written to a new or an empty folder")
    try:
        if isinstance(size, int) and size < 1:
            raise ValueError
        split = split_torch_state_dict_into_shards(weights, filename_pattern=SHARDS, max_shard_size=size)
    except (TypeError, ValueError):
        raise ValueError(f"a shard's size is a number of bytes, or text as '5GB', got {size!r}") from None
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        for file, names in split.filename_to_tensors.items():
            write(partial / file, {name: weights[name] for name in names}, metadata)
        if split.is_sharded:
            index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
            write_json(partial / SHARD_INDEX, index)
        if folder.exists():
            folder.rmdir()
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


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
