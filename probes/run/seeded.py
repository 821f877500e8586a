"""Sources of clips that a seed names: a procedural world, or a public data set.

world = open_world("tiles")                          # or "ucf101:UCF101/"; None for films, latents and `own`
batch = world.clips(seeds_of(settings), frames)
"""

from typing import Any

from framelens import videos
from framelens.probes.run.settings import Settings
from framelens.videos import worlds
from framelens.videos.datasets import open_dataset


def open_world(source: str) -> Any:
    """The world or data set of that name, or None. Raises as open_dataset does."""
    return worlds.load(source) if source in worlds.names() else open_dataset(source)


def seeds_of(settings: Settings) -> range:
    """The seeds of a probe's clips: one more than requested, so that every clip has another as control."""
    first = videos.VALIDATION_SEED + settings.seed * 1_000_000
    return range(first, first + settings.clips + 1)
