"""FAR-Long (Gu et al. 2025): FAR whose far past is coarse, so that hundreds of frames stay in view.

    model = models.load("FAR_M_Long.pth")                     # the newest 16 frames fine, older ones coarse
    model = models.load("FAR_M_Long.pth", short_frames=8)     # not stored in such a file, see DEFAULTS

The network is in models/far_long/network.py.
"""

from collections.abc import Collection
from math import isqrt
from typing import Any

from framelens.models import official
from framelens.models.far_long.network import Config, FarLong
from framelens.models.loading.checkpoint import Checkpoint
from framelens.models.parts.config import LATENT, preset

CLASSES: tuple[str, ...] = ()
DEFAULTS: dict[str, Any] = {"height": 8, "width": 8, "patch": 1, "short_frames": 16}
"""Values that no tensor shows, as in the released models: latent size, patch, frames that stay fine."""

PRESETS = {
    "far-b-long": Config(layers=12, heads=12, d_model=768, conditions=4, **LATENT),
    "far-m-long": Config(layers=12, heads=16, d_model=1024, conditions=4, **LATENT),
}


def config(name: str, **changes) -> Config:
    """A preset's configuration with changes; an unknown preset raises ValueError with those that exist."""
    return preset(PRESETS, "far_long", name, changes)


def build(config: Config | dict) -> FarLong:
    """The network with freshly initialised weights (adaLN-zero)."""
    return FarLong(Config.from_values(config) if isinstance(config, dict) else config)


def recognises(names: Collection[str]) -> bool:
    """Whether these are the tensor names of FAR-Long: only it embeds coarse patches."""
    return "context_embedder.weight" in names


def read(checkpoint: Checkpoint, options: dict[str, Any]) -> tuple[FarLong, dict[str, Any]]:
    """The network with the file's weights, and its metadata. Raises ValueError if they do not fit."""
    fields = options | official.sizes(checkpoint, "", options["patch"])
    fields["context_patch"] = _context_patch(checkpoint, fields["channels"])
    fields["layers"] = official.depth(checkpoint, "")
    fields["conditions"] = official.conditions(checkpoint, "", "action")
    model = official.on_meta(checkpoint, "far_long", fields)
    names = {name: official.official_name(name, "action") for name in model.state_dict()}
    official.fill(model, checkpoint, names)
    model.latent = True
    metadata = {"network": "far_long", "config": model.describe(), "origin": "the released code of FAR"}
    return model, metadata | {"latent": True}


def _context_patch(checkpoint: Checkpoint, channels: int) -> int:
    """The side of a coarse patch in latent pixels, from its number of values."""
    width, values = official.matrix(checkpoint, "context_embedder.weight")
    side = isqrt(values // channels)
    if values != channels * side**2:
        raise ValueError(
            f"{checkpoint.path}: context_embedder.weight has shape {(width, values)}, expected {channels} "
            "channels times a square"
        )
    return side
