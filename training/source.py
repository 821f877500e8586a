"""The clips that a training and its scores are of: a world, a public data set, or files of latents.

source = open_source("tiles")                    # or "ucf101@64:UCF101/", "latents/", "clips.safetensors"
batch = source.clips(seeds=range(8), frames=10)
"""

from pathlib import Path
from typing import Any

from framelens.diffusion.contract import CausalDiffuser, traits
from framelens.videos import datasets, worlds
from framelens.videos.datasets import RecordedClips, open_dataset
from framelens.videos.stored import StoredClips, open_stored


def open_source(name: str) -> Any:
    """The world, data set, or stored clips of that name or at that path; ValueError where there are none."""
    if name in worlds.names():
        return worlds.load(name)
    dataset = open_dataset(name)
    if dataset is not None:
        return dataset
    if not Path(name).exists():
        known = ", ".join(worlds.names())
        raise ValueError(
            f"no videos are called {name!r}: expected a world ({known}), a path of latents, or a data set "
            f"({', '.join(datasets.names())}) as in ucf101:FOLDER"
        )
    return open_stored(Path(name))


def require_held_out(source: Any, clips: int) -> None:
    """ValueError where fewer clips are kept for validation than that; a world gives any number."""
    if isinstance(source, StoredClips | RecordedClips) and clips > source.held_out:
        raise ValueError(f"{source.held_out} clips are kept for validation, got {clips}: lower --clips")


def require_fit(source: Any, name: str, network: CausalDiffuser) -> None:
    """ValueError where the network takes other frames, or fewer actions or classes than these videos have."""
    geometry = network.geometry
    wanted = geometry.channels, geometry.height, geometry.width
    if tuple(source.SHAPE) != wanted:
        raise ValueError(
            f"{name} has frames of {tuple(source.SHAPE)} (channels, height, width), the model takes {wanted}"
        )
    describe = traits(network).describe
    known = describe().get("conditions") if describe else None
    if known and source.CONDITIONS > known:
        raise ValueError(f"{name} has {source.CONDITIONS} actions or classes, the model knows {known}")
