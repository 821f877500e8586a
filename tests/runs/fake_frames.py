"""Frames kept under interventions and films of cuts, invented, in the schema that probes write. For tests only.

A frame is the truth with noise of a strength that depends on the layer; values are bytes, as of pixels.
"""

import numpy as np
import xarray as xr

CLIPS, FRAMES, CONTEXT = 2, 12, 3
PICTURE = ("channel", "row", "col")


def datasets(size: dict, truth: xr.DataArray) -> dict[str, xr.Dataset]:
    """`truth` is that of the samples, in [-1, 1]; `size` has layer."""
    rng, layers = np.random.default_rng(11), np.arange(size["layer"])
    names = [f"blocks.{layer}" for layer in layers]
    clips = truth.isel(clip=slice(CLIPS))
    last, depth = clips.isel(frame=-1), layers / max(1, len(layers) - 1)
    strengths = {"cut": 1 - depth, "leave_one_out": 0.3 + 0 * depth, "reuse": 0.2 * depth}
    found = {}
    for name, strength in strengths.items():
        chosen = layers[::2] if name == "reuse" else layers
        kept = _worsen(last.values[:, None], strength[chosen].reshape(1, -1, 1, 1, 1), rng)
        variables = {
            "generated": (("clip", "layer", *PICTURE), kept),
            "plain": (("clip", *PICTURE), _worsen(last.values, 0.05, rng)),
            "truth": (("clip", *PICTURE), as_bytes(last.values)),
        }
        coords = {"clip": clips["clip"].values, "layer": chosen}
        coords |= {"point": ("layer", [names[layer] for layer in chosen])}
        attrs = {"frame": FRAMES - 1, "steps": 10, "latent": 0}
        found[f"{name}_frames"] = xr.Dataset(variables, coords, attrs)
    film = clips.isel(clip=slice(1), frame=slice(CONTEXT, None))
    kept = _worsen(film.values[:, None], (1 - depth).reshape(1, -1, 1, 1, 1, 1), rng)
    coords = {"clip": [0], "layer": layers, "frame": film.frame.values, "point": ("layer", names)}
    variables = {"video": (("clip", "layer", "frame", *PICTURE), kept)}
    found |= _lens(size, clips, rng)
    return found | {"cut_films": xr.Dataset(variables, coords, {"latent": 0})}


def _lens(size: dict, clips: xr.DataArray, rng: np.random.Generator) -> dict[str, xr.Dataset]:
    """Four layers at three steps; what is read becomes better with both."""
    steps = sorted({0, size["step"] // 2, size["step"] - 1})
    layers = sorted({-1, 0, size["layer"] // 2, size["layer"] - 1})
    noise = 1 - np.array(steps)[:, None] / size["step"]
    known = np.linspace(0.1, 0.9, len(layers)) * (1 - 0.3 * noise)
    names = ["hook_embed", *(f"blocks.{layer}.hook_resid_post" for layer in layers[1:])]
    coords = {"step": steps, "sigma": ("step", noise[:, 0]), "layer": layers, "point": ("layer", names)}
    r2 = known + rng.normal(0, 0.01, (size["clip"], *known.shape))
    last = clips.isel(frame=-1, clip=slice(1)).values
    by_step = _worsen(last[:, None], noise[None, :, :, None, None], rng)
    variables = {
        "read": (("clip", "step", "layer", *PICTURE), _worsen(last[:, None, None], 1 - known[..., None, None, None], rng)),
        "noised": (("clip", "step", *PICTURE), by_step),
        "predicted": (("clip", "step", *PICTURE), _worsen(last[:, None], 0.2 * noise[None, :, :, None, None], rng)),
        "truth": (("clip", *PICTURE), as_bytes(last)),
    }
    frames = xr.Dataset(variables, {"clip": [0]} | coords, {"frame": FRAMES - 1, "latent": 0, "patch": 4})
    lens = xr.Dataset({"r2": (("clip", "step", "layer"), r2)}, {"clip": np.arange(size["clip"])} | coords)
    return {"x0_lens": lens, "x0_lens_frames": frames}


def _worsen(frames: np.ndarray, strength: np.ndarray | float, rng: np.random.Generator) -> np.ndarray:
    shape = np.broadcast_shapes(frames.shape, np.shape(strength))
    return as_bytes(frames * (1 - strength) + strength * rng.normal(0, 1, shape))


def as_bytes(frames: np.ndarray) -> np.ndarray:
    """Pixels in [-1, 1] as numbers from 0 to 255."""
    return np.clip((frames + 1) * 127.5, 0, 255).round()
