"""Structured random rows in the schema of the experiment attention_rows. For tests only."""

from typing import Any

import numpy as np
import xarray as xr

CLIPS, TOKENS = 2, 24


def rows(size: dict[str, Any], layers: dict[str, Any], sigmas: list[float]) -> xr.Dataset:
    """Of two clips at the first and the last step; the patch at the query's own place has most of the mass.

    The last layer does not have a key for each patch of frame 0.
    """
    frame, steps, rng = max(size["frame"]), sorted({0, size["step"] - 1}), np.random.default_rng(7)
    clips, heads = min(CLIPS, size["clip"]), size["head"]
    front = (clips, len(steps), len(layers["layer"]), heads, TOKENS)
    weight = np.exp(rng.normal(0, 1.5, (*front, frame, TOKENS)) + 3 * np.eye(TOKENS)[:, None])
    own = weight.mean((-2, -1)) * TOKENS
    whole = weight.sum((-2, -1)) + own
    dims = ("clip", "step", "layer", "head", "query")
    mass, other = weight / whole[..., None, None], np.zeros(front)
    other[:, :, -1] = mass[:, :, -1, ..., 0, :].sum(-1)
    mass[:, :, -1, ..., 0, :] = np.nan
    data = {
        "mass": ((*dims, "frame", "token"), mass),
        "own_mass": (dims, own / whole),
        "other_mass": (dims, other),
        "keys": ("layer", np.full(front[2], (frame + 1) * TOKENS)),
    }
    coords = {"clip": np.arange(clips), "step": steps, "sigma": ("step", [sigmas[step] for step in steps])}
    coords |= {"frame": np.arange(frame)} | layers
    return xr.Dataset(data, coords, {"query_frame": frame})
