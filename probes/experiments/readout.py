"""How well a linear map reads the clean frame from each layer, at sigma 1, when only the past is known."""

import numpy as np
import torch
import xarray as xr
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from framelens.analyses.nested_folds import LEAST
from framelens.analyses.points import layer_of
from framelens.analyses.readout import ridge_readout, shuffle_clips
from framelens.analyses.sample import CONTROL_FILM, FILM, sample_of
from framelens.diffusion.contract import CausalDiffuser
from framelens.probes.experiments.noise_invariance import residual_stream
from framelens.probes.run.costs import Evaluations
from framelens.probes.run.probed_clip import ProbedClip
from framelens.probes.run.shape import NETWORK_COUNT, RunShape

TOKENS = 64
"""Tokens kept of a larger chunk: enough for a regression, few enough for the memory."""


@torch.no_grad()
def measure(probed_clip: ProbedClip) -> dict[str, xr.Dataset]:
    """`readout_features`: each layer's tokens at sigma 1 for frames after the context, and their patches."""
    features, points = [], []
    for model in probed_clip.networks.values():
        kept, points = _features(probed_clip, model)
        features.append(kept)
    frames = [frame for frame in probed_clip.chunks if frame >= probed_clip.settings.context]
    tokens = spread_tokens_of(probed_clip, TOKENS)
    target = torch.stack([patches_of(probed_clip, frame, tokens) for frame in frames])
    coords = {
        "network": list(probed_clip.networks),
        "frame": frames,
        "layer": [layer_of(point) for point in points],
        "point": ("layer", points),
    }
    variables = {
        "features": (("clip", "network", "frame", "layer", "token", "channel"), np.stack(features)[None]),
        "target": (("clip", "frame", "token", "value"), target.float().cpu().numpy()[None]),
    }
    return {"readout_features": xr.Dataset(variables, coords)}


def evaluations(run: RunShape) -> Evaluations:
    """One pass at sigma 1 for each chunk after the context."""
    passes = NETWORK_COUNT * run.drawn
    return Evaluations(passes * run.layers, NETWORK_COUNT * run.encoding(run.chunks - 1))


def kept_bytes(run: RunShape) -> int:
    """The past, and the residual stream of one pass in float32."""
    return run.cache_bytes(run.chunks) + run.residual_bytes(value_bytes=4)


def conclude(datasets: dict[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """`readout` with dims (clip, network, layer): r2 and r2_shuffled, cross-validated by clip or film.

    Whole films are left out where clips are of several. Empty for fewer than four clips, or films.
    """
    stored = datasets.pop("readout_features")
    sample = sample_of(stored)
    if sample.count < LEAST:
        return {}
    films = [str(film) for film in stored[FILM].values] if sample.unit == "film" else None
    target = torch.from_numpy(rearrange(stored.target.values, "c f n v -> c (f n) v"))
    targets = {"r2": target, "r2_shuffled": shuffle_clips(target, films=films)}
    features = rearrange(stored.features.values, "c w f l n d -> w l c (f n) d")
    dims = ("clip", "network", "layer")
    about = {
        "r2": "R² of the clean frame read linearly from the tokens at sigma 1, on left-out clips",
        "r2_shuffled": "the same for another clip's frames: the null",
    }
    variables = {}
    for name, text in about.items():
        r2 = [
            [ridge_readout(torch.from_numpy(x), targets[name], films).numpy() for x in network]
            for network in features
        ]
        values = np.array(r2, np.float32).transpose(2, 0, 1)
        variables[name] = (dims, values, {"units": "1", "long_name": text})
    kept = ("clip", "network", "layer", "point", FILM, CONTROL_FILM)
    coords = {name: stored[name] for name in kept if name in stored.coords}
    return {"readout": xr.Dataset(variables, coords)}


def _features(probed_clip: ProbedClip, model: CausalDiffuser) -> tuple[np.ndarray, list[str]]:
    """[frame, layer, token, channel] at sigma 1, and the hook points of the layers."""
    context, table, kept = model.start(1, probed_clip.clip.cond), [], {}
    noise = probed_clip.noise("readout")
    tokens = spread_tokens_of(probed_clip, TOKENS)
    for frame in probed_clip.chunks:
        span = probed_clip.span(frame)
        if frame >= probed_clip.settings.context:
            kept = residual_stream(model, noise[:, span], 1.0, context, frame)
            table.append([value[tokens].cpu().numpy() for value in kept.values()])
        if frame < probed_clip.chunks[-1]:
            context = model.encode(probed_clip.clip.video[:, span], context)
    return np.array(table), list(kept)


def spread_tokens_of(probed_clip: ProbedClip, most: int) -> Int[Tensor, " n"]:
    """A fixed, evenly spread choice of at most `most` tokens of a chunk, no more than the settings say."""
    tokens = probed_clip.networks["trained"].geometry.tokens_per_chunk
    most = min(most, tokens, probed_clip.settings.tokens or tokens)
    return torch.linspace(0, tokens - 1, most).round().long()


def patches_of(probed_clip: ProbedClip, frame: int, tokens: Int[Tensor, " n"]) -> Float[Tensor, "n values"]:
    """The true pixels, or latents, of those tokens of the chunk that begins with that frame."""
    patch = probed_clip.networks["trained"].geometry.patch
    chunk = probed_clip.clip.video[0, probed_clip.span(frame)]
    return rearrange(chunk, "f c (h p) (w q) -> (f h w) (c p q)", p=patch, q=patch)[tokens]
