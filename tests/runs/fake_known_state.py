"""Structured random scores in the schema of the experiment known_state. For tests only."""

from typing import Any

import numpy as np
import xarray as xr

ASKED = {
    "thing in view": ("in view", "token", "balanced accuracy", 0.25, 0.3),
    "thing seen earlier": ("out of view", "token", "balanced accuracy", 0.25, 0.6),
    "thing never seen": ("control", "token", "balanced accuracy", 0.25, np.inf),
    "speed": ("motion", "frame", "R²", 0.0, 0.5),
    "noise level": ("noise", "frame", "balanced accuracy", 1 / 3, 0.0),
}
"""Group, per, measure and chance of each target, and the share of the depth at which it enters."""


def known_state(layers: dict[str, Any], rng: np.random.Generator, clips: int = 12) -> xr.Dataset:
    """`layers` holds the coordinates layer and point, the embedding first."""
    group, per, measure, chance, enters = (list(column) for column in zip(*ASKED.values(), strict=True))
    depth, sigma = np.linspace(0, 1, len(layers["layer"])), np.array([1.0, 0.75, 0.25])
    floor = np.array(chance)[:, None, None]
    is_known = (depth[:, None] >= np.array(enters)[:, None, None]) | (sigma < 0.5)
    trained = np.where(is_known, 0.9, floor)
    random = np.where(sigma == 1, floor + 0 * trained, np.nan)
    score = np.stack([trained, random])[None] + rng.normal(0, 0.03, (clips, 1, *trained.shape))
    shuffled = floor + rng.normal(0, 0.03, (clips, *trained.shape))
    about = ["what it is"] * len(ASKED)
    coords = {
        "clip": np.arange(clips),
        "network": ["trained", "random"],
        "target": list(ASKED),
        "sigma": sigma,
    }
    by_target = {"group": group, "per": per, "measure": measure, "about": about}
    coords |= {name: ("target", values) for name, values in by_target.items()}
    data = {
        "score": (("clip", "network", "target", "layer", "sigma"), score),
        "score_shuffled": (("clip", "target", "layer", "sigma"), shuffled),
        "chance": ("target", chance),
        "rows": ("target", [900.0] * len(ASKED)),
    }
    return xr.Dataset(data, coords | layers, {"frames": [4, 9]})
