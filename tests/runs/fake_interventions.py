"""Interventions and a plan, with invented numbers, in the schema that probes write. For tests only.

Planted: the past comes in before the middle layer and can be fetched once; random weights make nothing of it.
"""

import numpy as np
import xarray as xr

from framelens.records import typed
from framelens.records.plan import Plan

SIGMAS = [0.19, 0.36, 0.5, 0.64, 0.81]
NETWORKS = ["trained", "random"]
OWN, PLAIN = 0.2, 0.01
CONTROLS = {
    "identity_edit": 0, "identity_attention": 0, "own_frame_only": 1, "other_clip_cross": 1,
    "other_clip_features": 1,
}  # fmt: skip


def datasets(size: dict, controls_hold: bool = True) -> dict[str, xr.Dataset]:
    """Every dataset of interventions, by name; `size` has clip, layer, head."""
    layers = np.arange(size["layer"])
    middle = size["layer"] // 2
    late, early = (layers >= middle).astype(float), (layers < middle).astype(float)
    alone = np.where(layers == middle - 1, 0.4, 1.0)
    noise = np.random.default_rng(1).normal(0, 0.1, size["clip"])
    clips = np.exp(noise - noise.mean())
    made = _Made(size, clips)
    once, starts = np.ones(len(layers)), [0, 2]
    kinds = {"hard": 0.3 + 0.3 * late, "delta": 0.9 - 0.2 * late}
    kinds |= {"cross": once - 0.02, "cross_only": late * 0.98}
    names = list(kinds)
    reuse = np.stack([np.stack([kept, (kept + 1) / 2], -1) for kept in kinds.values()])
    where = np.stack([late, alone, early])
    heads = np.broadcast_to(np.where(layers == middle - 1, 0.7, 1.0)[:, None], (len(layers), size["head"]))
    sources = np.stack([np.stack([early - 1.5 * late] * 3), np.stack([0 * once, 0 * once, early])])
    spans = [(first, first + 1) for first in range(size["layer"] - 1)]
    skip = np.stack([np.full(len(spans), kept) for kept in (0.1, 0.5)], -1)
    by_layer = {"layer": layers}
    found = {
        "reuse": made(reuse, {"kind": names} | by_layer | {"start": starts}, shares=True),
        "reuse_refresh": made(reuse[:3], {"kind": names[:3]} | by_layer | {"refresh": [2, 4]}, shares=True),
        "reuse_controls": made(sources, {"source": ["other_clip", "none"], "kind": names[:3]} | by_layer),
        "cut": made(where, {"where": ["from", "only", "up_to"]} | by_layer, networks=True),
        "cut_heads": made(heads, by_layer | {"head": np.arange(size["head"])}),
        "leave_one_out": made(alone - 0.5, by_layer, networks=True),
        "skip": made(skip, {"span": [f"{a}-{b}" for a, b in spans], "kept_steps": [0, 2]}, shares=True),
        "controls": _controls(size["clip"], controls_hold),
    }
    found["skip"] = found["skip"].assign_coords(
        first=("span", [a for a, _ in spans]), last=("span", [b for _, b in spans])
    )
    depth = layers[None] / size["layer"]
    drift = clips[:, None, None, None, None] * np.stack([0.1 + 0 * depth, 0.1 + depth])[None, None]
    drift = np.broadcast_to(drift.transpose(0, 1, 3, 2, 4), (len(clips), 2, 1, 2, len(layers)))
    axes = ("clip", "network", "sigma", "scope", "layer")
    found["mask_drift"] = xr.Dataset(
        {"relative_l2": (axes, drift), "centred_cosine": (axes, 1 - drift**2 / 2)},
        {"network": NETWORKS, "sigma": [0.5], "scope": ["alone", "through"], "layer": layers},
    )
    found["reuse"] = found["reuse"].assign_coords(start_sigma=("start", [1.0, 0.8]))
    found["leave_one_out"]["relative_loss"] = (
        found["leave_one_out"].velocity_error / found["leave_one_out"].plain_velocity_error - 1
    )
    return found


class _Made:
    """Measures that follow from the share that is kept, clip by clip."""

    def __init__(self, size: dict, clips: np.ndarray):
        self.size, self.clips = size, clips

    def __call__(
        self, kept: np.ndarray, axes: dict, networks: bool = False, shares: bool = False
    ) -> xr.Dataset:
        dims, count = tuple(axes), len(self.clips)
        clips = self.clips.reshape(-1, *[1] * kept.ndim)
        mse = clips * OWN - (kept - 0.2 * np.abs(clips - 1)) * clips * (OWN - PLAIN)
        data = {name: (("clip", *dims), values) for name, values in self._frames(mse).items()}
        data |= {f"plain_{name}": ("clip", v) for name, v in self._frames(self.clips * PLAIN).items()}
        velocity_dims = tuple(dim for dim in dims if dim not in ("start", "refresh", "kept_steps"))
        drop = [axis for axis, dim in enumerate(dims) if dim not in velocity_dims]
        velocity = np.take(mse, 0, axis=drop[0] + 1) if drop else mse
        velocity = velocity[..., None] * np.array([1.2, 1.1, 1.0, 0.9, 0.8])
        whole = self.clips[:, None] * PLAIN * np.array([1.2, 1.1, 1.0, 0.9, 0.8])
        front: tuple[str, ...] = ("clip",)
        if networks:
            velocity = np.stack([velocity, 2.4 * np.exp(0.01 * np.log(velocity / velocity.mean()))], 1)
            whole = np.stack([whole, np.full_like(whole, 2.4)], 1)
            front = ("clip", "network")
        data["velocity_error"] = ((*front, *velocity_dims, "sigma"), velocity)
        data["velocity_change"] = ((*front, *velocity_dims, "sigma"), 0.5 * velocity)
        data["plain_velocity_error"] = ((*front, "sigma"), whole)
        if shares:
            data["block_share"] = (("clip", *dims), np.full((count, *kept.shape), 0.6))
        coords = {"clip": np.arange(count), **axes, "sigma": SIGMAS}
        coords |= {"network": NETWORKS} if networks else {}
        coords |= {"point": ("layer", [f"blocks.{i}" for i in axes["layer"]])} if "layer" in axes else {}
        return xr.Dataset(data, coords, attrs={"steps": 10, "frame": 9, "draws": 2})

    def _frames(self, mse: np.ndarray) -> dict[str, np.ndarray]:
        """Sampled-frame measures of an error."""
        measures = {"mse": mse, "psnr": 10 * np.log10(4 / mse), "sharpness": 1.05 - mse}
        return measures | {"diversity": mse / 10, "change": mse / 2}


def _controls(clips: int, hold: bool) -> xr.Dataset:
    must = np.array(list(CONTROLS.values()), float)
    effect = np.tile(must * 0.8, (clips, 1))
    if not hold:
        effect[:, 2] = 0.001
    passed = np.where(must == 1, effect > 0.01, effect == 0).astype(float)
    data = {"effect": (("clip", "control"), effect), "passed": (("clip", "control"), passed)}
    data |= {"must_fire": (("clip", "control"), np.tile(must, (clips, 1)))}
    return xr.Dataset(data, {"clip": np.arange(clips), "control": list(CONTROLS)}, attrs={"threshold": 0.01})


def plan(size: dict, verdict: str = "separable", controls_hold: bool = True) -> Plan:
    """A plan as it is written beside a run; invented, but for the controls it does not depend on the data."""
    layers = size["layer"]
    depth = layers // 2
    tail = list(range(depth, layers))
    text = "Failed: own_frame_only (effect 0.001)." if not controls_hold else "All 5 controls passed."
    tests = [
        _test("controls", "condition", "Do the instruments work?", text, controls_hold, 1.0),
        _test("once", "core", "Can the past be fetched once?", "Kept: 0.98 <by velocity>.", True, 0.9),
        _test("sharp", "core", "Is the frame as sharp?", "This run did not measure it.", None, 0.9),
    ]
    sweep = {"threshold": [0.7, 0.9], "encoder_layers": [depth, layers + 1], "low": [depth, depth]}
    sweep |= {"high": [depth, layers + 1], "live": [depth, None], "decoder": [tail, None]}
    sweep |= {"spread": 1, "tracks_threshold": False, "said": "It does not hang on the threshold."}
    split = {"encoder_layers": depth, "head": [0], "tail": tail, "decoder": [0, *tail], "threshold": 0.9}
    prediction = {"steps": 20, "history": 9, "tokens": 24, "batch": 1, "value_bytes": 4, "fusion": "prefix"}
    prediction |= {"speed_up": 1.87, "bound": 2.1, "cache_bytes": 3 * 2**20, "dense_cache_bytes": 5 * 2**20}
    prediction |= {"frame_flops": 2e9, "dense_frame_flops": 4e9, "parameters": 4e6, "dense_parameters": 3.6e6}
    nearby = {"encoder_layers": depth, "decoder_layers": 5, "speed_up": 1.87, "cache_bytes": 3e6}
    nearby |= {
        "parameters": 4e6,
        "chosen": True,
        "clock_speed_up": None,
        "kept": {"mean": 0.98, "low": None, "high": None},
    }
    found = {
        "created": "2000-01-01", "command": "", "verdict": verdict,
        "reason": "What it fetches <once> serves every later step: 0.98 [0.97, 0.99].",
        "decision": "A test is passed only if its whole interval is.",
        "model": {"name": "fake", "network": "dense", "layers": layers, "tokens_per_frame": 24}
        | {"frames_per_chunk": 1},
        "run": {"folder": "runs/fake/first", "clips": size["clip"], "quick": False},
        "tests": tests, "remarks": ["Layer 1 would no longer see the noisy frame."],
        "would_decide": "", "acting": None, "sweep": sweep,
        "split": split | {"dispensable": [layers - 1], "is_provisional": False},
        "architecture": {"encoder_layers": depth, "decoder_layers": 5, "fusion": "prefix"},
        "curves": {},
        "prediction": prediction | {"clock": None, "nearby": [nearby]},
    }  # fmt: skip
    if verdict == "not separable":
        found |= {"split": None, "architecture": None, "prediction": None}
    return typed.build(Plan, found)


def _test(name: str, kind: str, question: str, measured: str, passed: bool | None, threshold: float) -> dict:
    numbers = {"value": 0.98, "low": None, "high": None, "threshold": threshold, "side": "above"}
    words = {"because": "a tenth can be won back", "failing": "it fails", "asked": "", "beside": ""}
    about = {"name": name, "kind": kind, "question": question, "measured": measured, "passed": passed}
    return about | numbers | words
