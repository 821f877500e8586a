"""What can be read linearly of a world's known state, by layer and noise level, on teacher-forced frames.

Linear probes need more clips than other experiments. So for each of its clips a run also encodes several
further clips of the same world (probes/run/world_features.py), without generating a frame.
"""

from concurrent.futures import ThreadPoolExecutor
from math import ceil
from typing import Any

import numpy as np
import torch
import xarray as xr
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from framelens.analyses.points import layer_of
from framelens.analyses.readout import shuffle_clips
from framelens.analyses.state_readout import state_readout
from framelens.probes.run.clips import source_of
from framelens.probes.run.costs import Evaluations
from framelens.probes.run.probed_clip import ProbedClip
from framelens.probes.run.shape import NETWORK_COUNT, RunShape
from framelens.probes.run.world_features import (
    CHANNELS,
    TOKENS,
    chosen_tokens,
    clips_of,
    features,
    frames_of,
    known_world,
    seeds,
    sigmas_of,
)
from framelens.records.cores import usable_cores
from framelens.records.progress import progress_bar
from framelens.videos import worlds
from framelens.videos.targets import Target

FEATURES = "known_state_features"
NOISE = {
    "name": "noise level",
    "group": "noise",
    "about": "which of the noise levels the pass is at; one fit over all of them",
    "units": "1",
    "per": "frame",
}


def measure(probed_clip: ProbedClip) -> dict[str, xr.Dataset]:
    """`known_state_features`, from which `conclude` computes scores; nothing where the state is not known.

    ValueError if it is not known and the settings name this experiment.
    """
    world = _world(probed_clip)
    if world is None:
        return {}
    settings, model = probed_clip.settings, probed_clip.networks["trained"]
    batch = world.clips(seeds(probed_clip), probed_clip.frames)
    probed, sigmas = frames_of(settings, probed_clip.frames, probed_clip.chunk), sigmas_of(settings)
    recorded = [
        features(probed_clip, each, batch, probed, _levels(name, len(sigmas)))
        for name, each in probed_clip.networks.items()
    ]
    points = recorded[0][1]
    dims = ("clip", "member", "network", "frame", "sigma", "layer", "token", "channel")
    variables: dict[str, Any] = {"features": (dims, np.stack([kept for kept, _ in recorded], 1)[None])}
    for index, (name, target) in enumerate(world.targets(batch, model.geometry.patch).items()):
        variables[f"target_{index:02d}"] = _stored_target(index, name, target, probed, chosen_tokens(model))
    coords = {
        "network": list(probed_clip.networks),
        "frame": probed,
        "sigma": list(sigmas),
        "layer": [layer_of(point) for point in points],
        "point": ("layer", points),
    }
    return {FEATURES: xr.Dataset(variables, coords)}


def evaluations(run: RunShape) -> Evaluations:
    """All further clips: at every noise level by the trained network, at the highest one by the others."""
    if not run.knows_state:
        return Evaluations(0)
    clips, probed = clips_of(run.settings), _frames_of_run(run)
    levels = len(sigmas_of(run.settings)) + NETWORK_COUNT - 1
    remembered = NETWORK_COUNT * run.encoding(probed[-1] // run.chunk, rows=clips)
    return Evaluations(clips * len(probed) * levels * run.layers, remembered)


def kept_bytes(run: RunShape) -> int:
    """The past of all further clips, and in float32 the features of each network at every point."""
    if not run.knows_state:
        return 0
    clips, probed = clips_of(run.settings), _frames_of_run(run)
    tokens, channels = min(TOKENS, run.tokens // run.chunk), min(CHANNELS, run.d_model)
    points = 1 + (ceil(run.layers / 2) if run.settings.quick else run.layers)
    table = clips * len(probed) * len(sigmas_of(run.settings)) * points * tokens * channels
    return run.cache_bytes(probed[-1] // run.chunk, rows=clips) + 4 * NETWORK_COUNT * table


def _frames_of_run(run: RunShape) -> list[int]:
    return frames_of(run.settings, run.chunks * run.chunk, run.chunk)


def conclude(datasets: dict[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """`known_state`: score of each target by clip, network, layer and sigma, with its null and its chance.

    Its clips are those of this experiment, numbered from 0. The null is that of the trained network; other
    networks are NaN except at the highest noise level.
    """
    stored = datasets.pop(FEATURES, None)
    if stored is None:
        return {}
    targets = [_Target(v) for name, v in stored.items() if str(name).startswith("target_")]
    by_layer = rearrange(stored.features.values, "c m w f s l n d -> w l s (c m) f n d")
    networks, levels, clips = stored.network.values.tolist(), *by_layer.shape[2:4]
    shape = (*by_layer.shape[:2], len(targets) + 1, clips, levels)
    score, shuffled = np.full(shape, np.nan, np.float32), np.full(shape[1:], np.nan, np.float32)

    def read(place: tuple[int, int]) -> None:
        network, layer = place
        read_at = _levels(networks[network], levels)
        x = torch.from_numpy(by_layer[network, layer, :read_at])
        tokens, means = x.flatten(2, 3), x.mean(3)
        for index, target in enumerate(targets):
            score[network, layer, index, :, :read_at] = target.scores(tokens, means)
            if networks[network] == "trained":
                shuffled[layer, index] = target.scores(tokens, means, shuffle=True)
        if networks[network] == "trained":
            score[network, layer, -1] = _noise_scores(means)
            shuffled[layer, -1] = _noise_scores(means, shuffle=True)

    places = list(np.ndindex(shape[:2]))
    with ThreadPoolExecutor(usable_cores()) as pool:
        for _ in progress_bar(pool.map(read, places), total=len(places), desc="known state", leave=False):
            pass
    noise = NOISE | {"rows": int(np.prod(by_layer.shape[2:5])), "classes": levels}
    return {"known_state": _describe(stored, [*(t.about for t in targets), noise], score, shuffled)}


def _levels(network: str, sigmas: int) -> int:
    """How many noise levels are read of a network, from the highest: of others than the trained one only the
    null, at the highest, where the frame itself is not visible."""
    return sigmas if network == "trained" else 1


def _stored_target(
    index: int, name: str, target: Target, probed: list[int], chosen: Tensor
) -> tuple[tuple[str, ...], np.ndarray, dict]:
    """A target at the probed frames, of the chosen tokens where it has a value for each token."""
    values = target.values[:, probed]
    per = "frame" if values.shape[2] == 1 else "token"
    values = values[:, :, chosen.numpy()] if per == "token" else values
    about = {"name": name, "group": target.group, "about": target.about, "units": target.units}
    axes = ("clip", "member", "frame", f"place_{index}", f"value_{index}")
    return axes, values[None].astype(np.float32), {**about, "classes": len(target.classes), "per": per}


class _Target:
    """A stored target, whose score is computed from features [c s f n d] of one layer."""

    def __init__(self, stored: xr.DataArray):
        clips = torch.from_numpy(stored.values).flatten(0, 1)  # [c f n k]
        self.values, self.is_whole = clips.flatten(1, 2), stored.attrs["per"] == "frame"
        self.about = stored.attrs | {"rows": int(self.values.isfinite().all(-1).sum())}

    def scores(
        self,
        tokens: Float[Tensor, "s c n d"],
        means: Float[Tensor, "s c f d"],
        shuffle: bool = False,
    ) -> Float[np.ndarray, "c s"]:
        """The score of each clip at each noise level; of whole-frame targets from the mean of the tokens."""
        values = shuffle_clips(self.values) if shuffle else self.values
        scores = state_readout(means if self.is_whole else tokens, values, int(self.about["classes"]))
        return scores[..., 0].T.numpy()


def _noise_scores(means: Float[Tensor, "s c f d"], shuffle: bool = False) -> Float[np.ndarray, "c s"]:
    """Share of the passes at each noise level that are recognised; shuffled: each clip in another order."""
    sigmas, clips, frames = means.shape[:3]
    levels = torch.arange(sigmas).expand(clips, -1)
    if shuffle:  # every order equally often, so that no order can be learned
        levels = (levels + torch.arange(clips)[:, None]) % sigmas
    rows = levels.repeat_interleave(frames, 1)[..., None].float()
    x = rearrange(means, "s c f d -> c (s f) d")
    return state_readout(x, rows, classes=sigmas, parts=sigmas).numpy()


def _describe(stored: xr.Dataset, about: list[dict], score: np.ndarray, shuffled: np.ndarray) -> xr.Dataset:
    """The tables with their axes and units and a description of each target."""
    text = "balanced accuracy of classes, R² of numbers, on clips left out of the fit"
    chance = np.array([1 / v["classes"] if v["classes"] else 0 for v in about], np.float32)
    rows = np.array([v["rows"] for v in about], np.float32)
    variables = {
        "score": (("network", "layer", "target", "clip", "sigma"), score, text),
        "score_shuffled": (
            ("layer", "target", "clip", "sigma"),
            shuffled,
            f"{text}: another clip's state, the null",
        ),
        "chance": (("target",), chance, "score of a guess without features"),
        "rows": (("target",), rows, "places where the target is defined, in all clips and frames"),
    }
    coords = {name: stored[name] for name in ("network", "layer", "point", "sigma")}
    coords |= {"clip": np.arange(score.shape[3]), "target": [v["name"] for v in about]}
    coords |= {key: ("target", [v[key] for v in about]) for key in ("group", "per", "about")}
    coords["measure"] = ("target", ["balanced accuracy" if v["classes"] else "R²" for v in about])
    described = {name: (dims, v, {"units": "1", "long_name": t}) for name, (dims, v, t) in variables.items()}
    dataset = xr.Dataset(described, coords, {"frames": stored.frame.values.tolist()})
    return dataset.transpose("clip", "network", "target", "layer", "sigma")


def _world(probed_clip: ProbedClip) -> Any:
    """The world that the clips come from, or None where it gives no targets."""
    model = probed_clip.networks["trained"]
    world = known_world(probed_clip.settings, model)
    if world is None and "known_state" in probed_clip.settings.experiments:
        known = [name for name in worlds.names() if hasattr(worlds.load(name), "targets")]
        raise ValueError(
            f"known_state has no targets: the state of {source_of(probed_clip.settings, model)} is not "
            f"known; leave it out of --experiments, or choose --videos {' or '.join(known)}"
        )
    return world
