"""A small run folder of structured random numbers, in the schema that probes write. For tests only."""

import atexit
import json
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import fake_attention
import fake_frames
import fake_interventions
import fake_known_state
import fake_manifest
import numpy as np
import xarray as xr

NETWORKS = ["trained", "random"]
MODES = ["teacher_forced", "free_running"]


def write(folder: Path, **options: Any) -> Path:
    """Writes a whole run; the options are those of `_write`. Runs of the same options are computed once."""
    shutil.copytree(_written(**options), folder, dirs_exist_ok=True)
    return folder


@cache
def _written(**options: Any) -> Path:
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return _write(folder, **options)


def _write(
    folder: Path,
    clips: int = 6,
    layers: int = 8,
    steps: int = 10,
    frames: tuple[int, ...] = (4, 9),
    heads: int = 4,
    channels: int = 3,
    split: int | None = None,
    complete: bool = True,
    claims_hold: bool = True,
    controls_hold: bool = True,
    verdict: str | None = None,
    seed: int = 0,
) -> Path:
    """Writes a whole run, with a plan if a verdict is given; the first `split` layers are encoder.*."""
    size = {"clip": clips, "layer": layers, "step": steps, "head": heads, "channels": channels}
    size |= {"frame": frames, "split": split, "holds": claims_hold}
    rng = np.random.default_rng(seed)
    datasets = {
        "step_similarity": _step_similarity(size, rng),
        "frame_attention": _frame_attention(size, rng),
        "feature_pca": _feature_pca(size, rng),
        "block_norms": _block_norms(size, rng),
        "noise_invariance": _noise_invariance(size, rng),
        "readout": _readout(size, rng),
        "samples": _samples(size, rng),
        "emergence": _emergence(size, rng),
        "known_state": fake_known_state.known_state(_layer_coords(size, "hook_resid_post", True), rng, clips),
        "attention_rows": fake_attention.rows(size, _layer_coords(size, "attn", False), _sigmas(steps)),
    } | fake_interventions.datasets(size, controls_hold)
    datasets |= fake_frames.datasets(size, datasets["samples"].truth)
    for name, dataset in datasets.items():
        dataset.astype("float32").to_netcdf(folder / f"{name}.nc", engine="netcdf4")
    (folder / "manifest.json").write_text(json.dumps(_manifest(size, complete), indent=1))
    if verdict is not None:
        fake_interventions.plan(size, verdict, controls_hold).write(folder / "plan.json")
    return folder


def _sigmas(steps: int) -> list[float]:
    return [float(s) for s in np.linspace(1, 0, steps + 1)]


def _manifest(size: dict, complete: bool) -> dict:
    geometry = {"frames_per_chunk": 1, "channels": size["channels"], "height": 16, "width": 24, "patch": 4}
    geometry |= {"tokens_per_frame": 24, "layers": size["layer"], "heads": size["head"], "d_model": 32}
    settings = {"clips": size["clip"], "steps": size["step"], "probed_frames": list(size["frame"])}
    return fake_manifest.probe(
        {"geometry": geometry}, settings, sigmas=_sigmas(size["step"]), complete=complete
    )


def _layer_coords(size: dict, end: str, embed: bool) -> dict:
    split, count = size["split"], size["layer"]
    parts = [("", count)] if split is None else [("encoder.", split), ("decoder.", count - split)]
    numbers, points = [], []
    for prefix, blocks in parts:
        if embed:
            numbers, points = [*numbers, -1], [*points, f"{prefix}hook_embed"]
        numbers += range(blocks)
        points += [f"{prefix}blocks.{layer}.{end}" for layer in range(blocks)]
    return {"layer": numbers, "point": ("layer", points)}


def _front(size: dict, mode: bool = True) -> tuple[tuple, list, dict]:
    dims, shape = ("clip", "network"), [size["clip"], 2]
    coords = {"clip": np.arange(size["clip"]), "network": NETWORKS}
    if mode:
        dims, shape, coords = (*dims, "mode"), [*shape, 2], coords | {"mode": MODES}
    return (*dims, "frame"), [*shape, len(size["frame"])], coords | {"frame": list(size["frame"])}


def _wobble(rng: np.random.Generator, shape: list[int], width: float = 0.02) -> np.ndarray:
    """Noise, most of it shared by everything of one clip, so that intervals have a width."""
    return rng.normal(0, width, [shape[0]] + [1] * (len(shape) - 1)) + rng.normal(0, width / 4, shape)


def _step_similarity(size: dict, rng: np.random.Generator) -> xr.Dataset:
    dims, shape, coords = _front(size)
    coords |= _layer_coords(size, "hook_resid_post", embed=True)
    steps, layers = size["step"], len(coords["layer"])
    sigma = np.array(_sigmas(steps)[:-1])
    far = np.abs(np.subtract.outer(sigma, sigma))
    depth = np.linspace(0, 1, layers)[:, None, None]
    trained = 1 - far * (0.25 if size["holds"] else 0.9) * (1.2 - depth)
    random = 1 - far * (0.8 if size["holds"] else 0.02) + 0 * depth
    both = np.stack([trained, random])[None, :, None, None]
    shape = [*shape, layers, steps, steps]
    raw = both - np.abs(_wobble(rng, shape)) * (far > 0)
    coords |= {"step": np.arange(steps), "step_b": np.arange(steps), "sigma": ("step", sigma)}
    dims = (*dims, "layer", "step", "step_b")
    values = {"cosine": raw, "centred_cosine": 1 - (1 - raw) * 1.3, "relative_l2": 1 - raw, "cka": raw**2}
    values |= {"token_cosine": 1 - (1 - raw) * 1.25, "token_cosine_median": 1 - (1 - raw) * 1.2}
    data = {name: (dims, value) for name, value in values.items()}
    shares = {"common_mode": 0.5, "token_share": 0.1, "channel_share": 0.2}
    data |= {name: (dims[:-1], np.full(shape[:-1], share)) for name, share in shares.items()}
    return xr.Dataset(data, coords)


def _frame_attention(size: dict, rng: np.random.Generator) -> xr.Dataset:
    dims, shape, coords = _front(size)
    coords |= _layer_coords(size, "attn", embed=False)
    lags, layers, heads, steps = max(size["frame"]) + 1, len(coords["layer"]), size["head"], size["step"]
    lag, frame = np.arange(lags), np.array(size["frame"])
    exists = lag[None] <= frame[:, None]
    uniform = exists / exists.sum(1, keepdims=True)
    depth = np.linspace(0, 1, layers)
    past = 0.9 - 0.75 * depth if size["holds"] else 0.3 + 0.6 * depth
    near = np.exp(-2 * np.abs(lag - 1) * (1 + depth[:, None])) * (lag >= 1)
    near = near[None] * exists[:, None]
    near = near / np.maximum(near.sum(-1, keepdims=True), 1e-9)
    here = (lag == 0)[None, None]
    trained = past[:, None] * near + (1 - past)[:, None] * here  # frame layer lag
    random = np.broadcast_to(uniform[:, None], trained.shape)
    both = np.stack([trained, random])[None, :, None, :, :, None, None]
    shape = [*shape, layers, heads, steps, lags]
    noisy = both * np.exp(_wobble(rng, shape, 0.1) + rng.normal(0, 0.2, [1, 2, 1, 1, layers, heads, 1, 1]))
    mass = noisy / noisy.sum(-1, keepdims=True)
    entropy = -(mass * np.log(np.maximum(mass, 1e-9))).sum(-1) + np.log(24) * 0.8
    coords |= {"head": np.arange(heads), "step": np.arange(steps), "lag": lag}
    coords |= {"sigma": ("step", np.array(_sigmas(steps)[:-1]))}
    dims = (*dims, "layer", "head", "step")
    absent = np.broadcast_to(~exists[:, None, None, None], mass.shape)
    data = {"mass": ((*dims, "lag"), np.where(absent, np.nan, mass)), "entropy": (dims, entropy)}
    data |= {"uniform": (("frame", "lag"), np.where(exists, uniform, np.nan))}
    data |= {"uniform_entropy": ("frame", np.log(24 * (frame + 1)))}
    data |= {"mean_lag": (dims, (mass * lag).sum(-1)), "cross_mass": (dims, mass[..., 1:].sum(-1))}
    return xr.Dataset(data, coords)


def _feature_pca(size: dict, rng: np.random.Generator) -> xr.Dataset:
    dims, shape, coords = _front(size)
    coords |= _layer_coords(size, "hook_resid_post", embed=False)
    chosen = np.unique(np.linspace(0, size["step"] - 1, 6).round().astype(int))
    layers, row, col = len(coords["layer"]), *np.mgrid[0:4, 0:6]
    waves = np.stack([np.sin(row), np.cos(col), np.sin(row + col)], -1).reshape(24, 3)
    shape = [*shape, layers, len(chosen), 24, 3]
    sharpness = np.linspace(0.3, 1, len(chosen))[:, None, None]
    components = np.clip(waves * sharpness + rng.normal(0, 0.2, shape) * (1 - sharpness), -1, 1)
    explained = np.broadcast_to([0.4, 0.2, 0.1], [*shape[:5], 3])
    coords |= {"pca_step": chosen}
    data = {"components": ((*dims, "layer", "pca_step", "token", "component"), components)}
    return xr.Dataset(data | {"explained": ((*dims, "layer", "component"), explained)}, coords)


def _block_norms(size: dict, rng: np.random.Generator) -> xr.Dataset:
    dims, shape, coords = _front(size)
    coords |= _layer_coords(size, "hook_resid_post", embed=False)
    layers = len(coords["layer"])
    growth = np.exp(np.linspace(0, 2, layers))[:, None]
    shape = [*shape, layers, size["step"]]
    coords |= {"step": np.arange(size["step"])}
    parts = {"attn_out": 0.3, "mlp_out": 0.5, "resid_post": 2.0}
    data = {
        name: ((*dims, "layer", "step"), scale * growth * np.exp(_wobble(rng, shape)))
        for name, scale in parts.items()
    }
    return xr.Dataset(data, coords)


def _noise_invariance(size: dict, rng: np.random.Generator) -> xr.Dataset:
    dims, shape, coords = _front(size, mode=False)
    coords |= _layer_coords(size, "hook_resid_post", embed=True)
    layers, sigma = len(coords["layer"]), np.array([1.0, 0.75, 0.5, 0.25])
    depth = np.linspace(-1, 1, layers)[:, None]
    rise = 1 / (1 + np.exp(-6 * depth)) * (0.8 if size["holds"] else 0.05)
    trained = rise + (1 - rise) * (1 - sigma) * 0.9
    random = 0.02 + (1 - sigma) * 0.9 + 0 * depth
    shape = [*shape, layers, len(sigma)]
    same = np.clip(np.stack([trained, random])[None, :, None] + _wobble(rng, shape), -1, 1)
    coords |= {"sigma": sigma}
    dims = (*dims, "layer", "sigma")
    values = {"centred_cosine": same, "other_context": same * 0.1}
    values |= {"token_cosine_median": same * 0.95, "other_context_token_cosine_median": same * 0.12}
    return xr.Dataset({name: (dims, value) for name, value in values.items()}, coords)


def _readout(size: dict, rng: np.random.Generator) -> xr.Dataset:
    coords = {"clip": np.arange(size["clip"]), "network": NETWORKS}
    coords |= _layer_coords(size, "hook_resid_post", embed=True)
    layers = len(coords["layer"])
    shape = [size["clip"], 2, layers]
    r2 = np.stack([np.linspace(0, 0.9, layers), np.full(layers, 0.05)])[None] + _wobble(rng, shape, 0.05)
    dims = ("clip", "network", "layer")
    return xr.Dataset({"r2": (dims, r2), "r2_shuffled": (dims, _wobble(rng, shape) - 0.05)}, coords)


def _samples(size: dict, rng: np.random.Generator) -> xr.Dataset:
    clips, channels = size["clip"], size["channels"]
    row, col = np.mgrid[0:16, 0:24]
    phase = np.arange(12)[None, :, None, None, None] * 0.5 + np.arange(clips)[:, None, None, None, None]
    tint = np.arange(channels)[None, None, :, None, None]
    truth = np.sin(row * 0.4 + col * 0.3 * (1 + 0.3 * tint) + phase)
    blur = np.array([0.1, 0.3])[None, :, None, None, None, None]
    video = truth[:, None] * (1 - blur) + rng.normal(0, 1, [clips, 2, 12, channels, 16, 24]) * blur
    video[:, :, :3] = truth[:, None, :3]
    with np.errstate(divide="ignore"):
        psnr = 10 * np.log10(4 / ((video - truth[:, None]) ** 2).mean((-1, -2, -3)))
    copied = 10 * np.log10(4 / ((np.roll(truth, 1, 1) - truth) ** 2).mean((-1, -2, -3)))
    mean = 10 * np.log10(4 / ((truth[:, :3].mean(1, keepdims=True) - truth) ** 2).mean((-1, -2, -3)))
    data = {
        "video": (("clip", "mode", "frame", "channel", "row", "col"), np.clip(video, -1, 1)),
        "truth": (("clip", "frame", "channel", "row", "col"), truth),
        "psnr": (("clip", "mode", "frame"), psnr),
        "psnr_copy_last": (("clip", "frame"), copied),
        "psnr_mean_frame": (("clip", "frame"), mean),
    }
    return xr.Dataset(data, {"clip": np.arange(clips), "mode": MODES, "frame": np.arange(12)})


def _emergence(size: dict, rng: np.random.Generator) -> xr.Dataset:
    coords = {"clip": np.arange(size["clip"]), "checkpoint": [0, 200, 400, 800, 1600]}
    coords |= _layer_coords(size, "hook_resid_post", embed=True)
    layers = len(coords["layer"])
    grown = np.linspace(0, 1, 5)[:, None] * np.linspace(0, 1, layers)
    shape = [size["clip"], 5, layers]
    cross = 0.9 - 0.6 * grown[None] + _wobble(rng, shape)
    cross[..., np.array(coords["layer"]) < 0] = np.nan
    dims = ("clip", "checkpoint", "layer")
    data = {
        "noise_invariance": (dims, np.clip(0.8 * grown[None] + _wobble(rng, shape), -1, 1)),
        "step_similarity_centred": (dims, np.clip(0.98 - 0.1 * grown[None] + _wobble(rng, shape), -1, 1)),
        "cross_mass": (dims, cross),
        "val_loss": ("checkpoint", [1.8, 0.3, 0.1, 0.05, 0.02]),
    }
    return xr.Dataset(data, coords)
