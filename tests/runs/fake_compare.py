"""A comparison's folder with invented numbers, as `framelens compare-train` writes it."""

import json
from pathlib import Path

import numpy as np
import xarray as xr

ARMS = ["dense 12", "prefix 8+4", "token_concat 8+4"]


def write(folder: Path, seeds: int = 2, clips: int = 6, state_error: bool = True) -> Path:
    """The folder; the second arm costs half of the first's step and ends with a lower loss."""
    rng = np.random.default_rng(0)
    checkpoint, sigma, frame = np.array([0, 50, 100]), [0.9, 0.5, 0.1], np.arange(3, 8)
    sampling = ["teacher_forced", "free_running", "copy", "copy of the context"]
    falling = np.array([1.0, 0.2, 0.1])[:, None] * np.array([1.0, 2.0, 3.0])
    loss = falling * np.array([1.0, 0.8, 1.1])[:, None, None, None] * np.ones((3, seeds, 1, 1))
    shape = (len(ARMS), seeds, len(sampling), clips, len(frame))
    dims = ("arm", "seed", "sampling", "clip", "frame")
    values = {
        "loss": (("arm", "seed", "checkpoint", "sigma"), loss),
        "psnr": (dims, 15 + rng.normal(size=shape)),
        "ssim": (dims, rng.uniform(0.5, 0.9, size=shape)),
        "parameters": (("arm", "seed"), np.array([[930_000 + 1000 * arm] * seeds for arm in range(3)])),
        "step_seconds": (("arm", "round"), np.array([[1.0, 1.2], [0.5, 0.6], [0.8, 0.9]])),
    }
    if state_error:
        values["state_error"] = (dims, rng.uniform(0, 3, size=shape))
    coords = {"arm": ARMS, "seed": range(seeds), "sampling": sampling, "checkpoint": checkpoint}
    dataset = xr.Dataset(values, coords | {"sigma": sigma, "frame": frame})
    folder.mkdir(parents=True, exist_ok=True)
    dataset.to_netcdf(folder / "compare.nc", engine="netcdf4")
    manifest = {
        "kind": "compare",
        "format": 1,
        "created": "2000-01-01",
        "git_commit": None,
        "versions": {},
        "device": "cpu",
        "title": "Dense and separated networks at an equal budget: tiles",
        "summary": f"3 networks, {seeds} trainings each of 100 steps; scored on {clips} clips.",
        "command": "framelens compare-train",
        "state_error": "agent's distance from its true place (tiles)" if state_error else None,
        "settings": {"seeds": seeds, "steps": 100},
        "complete": True,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder
