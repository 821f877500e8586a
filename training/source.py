"""The clips that a training and its scores are of: a world of videos/, or files of latents.

source = open_source("tiles")                    # or "latents/", "clips.safetensors"
batch = source.clips(seeds=range(8), frames=10)
"""

from pathlib import Path
from typing import Any

from framelens.videos import worlds
from framelens.videos.stored import StoredClips, open_stored


def open_source(name: str) -> Any:
    """The world of that name, or the stored clips at that path; ValueError where there is neither."""
    if name in worlds.names():
        return worlds.load(name)
    if not Path(name).exists():
        known = ", ".join(worlds.names())
        raise ValueError(f"no videos are called {name!r}: expected a world ({known}), or a path of latents")
    return open_stored(Path(name))


def require_held_out(source: Any, clips: int) -> None:
    """ValueError where fewer clips are kept for validation than that; a world gives any number."""
    if isinstance(source, StoredClips) and clips > source.held_out:
        raise ValueError(f"{source.held_out} clips are kept for validation, got {clips}: lower --clips")
