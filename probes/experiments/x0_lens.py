"""The clean frame as each layer sees it at each step: a linear read-out of the residual stream, as a picture.

The true frame is noised to the level of a step and denoised once, after its true past. One affine map for all
tokens, fitted on other clips, reads a patch of the clean frame from the token of a layer. Beside it are the
noised frame and what the whole model predicts, x - sigma v. Of the trained network, at a few layers and
steps; of networks so large that this takes more than MOST_BYTES, only if the settings name this experiment.
"""

from itertools import product
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from framelens.analyses.cost import FLOAT32
from framelens.analyses.nested_folds import LEAST
from framelens.analyses.places import even_places
from framelens.analyses.points import layer_of
from framelens.analyses.sample import CONTROL_FILM, FILM, sample_of
from framelens.analyses.x0_lens import read_by_one_map
from framelens.diffusion.schedule import add_noise
from framelens.probes.chunk.kept_frames import PICTURE, as_stored, describe_stored
from framelens.probes.chunk.scale import Scale
from framelens.probes.experiments.noise_invariance import watch_pass
from framelens.probes.experiments.readout import patches_of, spread_tokens_of
from framelens.probes.run.costs import Evaluations
from framelens.probes.run.probed_clip import ProbedClip
from framelens.probes.run.settings import Settings
from framelens.probes.run.shape import RunShape, shape_of_run

STEPS, LAYERS, CHUNKS, TOKENS = 5, 8, 8, 64
"""The most steps and points of the residual stream; chunks of a clip and tokens of each, for the fit."""
MOST_BYTES = 512_000_000
"""Of the features of the shown clip, unless the settings name this experiment."""
FEATURES, SHOWN = "x0_lens_features", "x0_lens_shown"


class LensPass(NamedTuple):
    """One pass: features [layer n d] at these points, of the tokens for the fit and of the last frame's; the
    noised chunk and the one that is predicted."""

    points: list[str]
    fit: np.ndarray
    own: np.ndarray
    sigma: float
    noised: Tensor
    predicted: Tensor


@torch.no_grad()
def measure(probed_clip: ProbedClip) -> dict[str, xr.Dataset]:
    """Features and patches of the clean frame for the fit; of the first clip all tokens of the last frame."""
    model, video = probed_clip.networks["trained"], probed_clip.clip.video
    run = shape_of_run(model, probed_clip.settings, probed_clip.frames)
    if not _is_made(run):
        return {}
    context, chosen = model.start(1, probed_clip.clip.cond), _even(chunks_of(run), CHUNKS)
    table, targets, seen = [], [], []
    for frame in probed_clip.chunks:
        if frame in chosen:
            seen = [_see(probed_clip, context, frame, step) for step in steps_of(probed_clip.settings)]
            table.append(np.stack([each.fit for each in seen]))
            targets.append(
                patches_of(probed_clip, frame, spread_tokens_of(probed_clip, TOKENS)).float().cpu().numpy()
            )
        if frame < probed_clip.chunks[-1]:
            context = model.encode(video[:, probed_clip.span(frame)], context)
    variables = {
        "features": (("clip", "frame", "step", "layer", "token", "channel"), np.stack(table)[None]),
        "target": (("clip", "frame", "token", "value"), np.stack(targets)[None]),
    }
    coords = {
        "step": steps_of(probed_clip.settings),
        "sigma": ("step", [each.sigma for each in seen]),
        "layer": [layer_of(point) for point in seen[0].points],
        "point": ("layer", seen[0].points),
    }
    found = {FEATURES: xr.Dataset(variables, {"frame": chosen} | coords)}
    return found | ({SHOWN: _keep_shown(probed_clip, seen, coords)} if probed_clip.index == 0 else {})


def evaluations(run: RunShape) -> Evaluations:
    """One pass at each of the steps for each of the chunks; the clip is encoded."""
    if not _is_made(run):
        return Evaluations(0)
    passes = len(steps_of(run.settings)) * len(_even(chunks_of(run), CHUNKS))
    return Evaluations(passes * run.layers, run.encoding(run.chunks - 1))


def kept_bytes(run: RunShape) -> int:
    """The past, the features for the fit, and those of the shown frames."""
    if not _is_made(run):
        return 0
    fit = len(_even(chunks_of(run), CHUNKS)) * min(TOKENS, run.tokens)
    cells = len(steps_of(run.settings)) * min(LAYERS, run.layers + 1)
    return run.cache_bytes(run.chunks) + FLOAT32 * cells * run.d_model * (fit + run.tokens // run.chunk)


def conclude(datasets: dict[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """`x0_lens`, (clip, step, layer): R² on clips that the map was not fitted on; and `x0_lens_frames` of the
    first clip: what is read, the noised frame, the model's prediction and the truth.

    Empty for fewer than four clips, or films.
    """
    if FEATURES not in datasets:
        return {}
    stored, shown = datasets.pop(FEATURES), datasets.pop(SHOWN)
    sample = sample_of(stored)
    if sample.count < LEAST:
        return {}
    names = stored[FILM].values if sample.unit == "film" else range(sample.clips)
    films, y = [str(name) for name in names], torch.from_numpy(stored.target.values).flatten(1, 2)
    r2, read = [], []
    for step, layer in product(range(stored.sizes["step"]), range(stored.sizes["layer"])):
        x, tokens = (
            torch.from_numpy(part.features.isel(step=step, layer=layer).values) for part in (stored, shown)
        )
        scores, patches = read_by_one_map(x.flatten(1, 2), y, films, tokens[0])
        r2.append(scores.numpy())
        read.append(as_stored(_picture(patches, shown), bool(shown.attrs["latent"])))
    grid = (stored.sizes["step"], stored.sizes["layer"])
    values = np.stack(r2, 1).reshape(-1, *grid).astype(np.float32)
    text = "R² of the clean frame read linearly from the tokens of a layer, on left-out clips"
    variables = {"r2": (("clip", "step", "layer"), values, {"units": "1", "long_name": text})}
    named = ("clip", "step", "sigma", "layer", "point", FILM, CONTROL_FILM)
    lens = xr.Dataset(variables, {name: stored[name] for name in named if name in stored.coords})
    frames, pictures = shown.drop_vars("features"), np.stack(read)
    dims = ("clip", "step", "layer", *PICTURE)
    frames["read"] = (dims, pictures.reshape(1, *grid, *pictures.shape[1:]), shown.truth.attrs)
    return {"x0_lens": lens, "x0_lens_frames": frames}


def _see(probed_clip: ProbedClip, context: Any, frame: int, step: int) -> LensPass:
    """The pass of the true chunk, noised to the level of that step."""
    span, sigma = probed_clip.span(frame), float(probed_clip.sigmas[step])
    clean, noise = probed_clip.clip.video[:, span], probed_clip.noise("x0_lens")[:, span]
    x = add_noise(clean, noise, clean.new_full(clean.shape[:2], sigma))
    stream, velocity = watch_pass(probed_clip.networks["trained"], x, sigma, context, frame)
    points = _even(list(stream), LAYERS)
    last = slice(-probed_clip.networks["trained"].geometry.tokens_per_frame, None)
    fit, own = (
        torch.stack([stream[point][tokens] for point in points]).cpu().numpy()
        for tokens in (spread_tokens_of(probed_clip, TOKENS), last)
    )
    return LensPass(points, fit, own, sigma, x, x - sigma * velocity)


def _keep_shown(probed_clip: ProbedClip, seen: list[LensPass], coords: dict[str, Any]) -> xr.Dataset:
    """Of the last frame of the last chunk: the features of its tokens by step, and its pictures."""
    model, video = probed_clip.networks["trained"], probed_clip.clip.video
    is_latent = Scale.of(model, video).is_latent
    about, by_step = describe_stored(is_latent), ("clip", "step", *PICTURE)
    noised, predicted = (
        np.stack([as_stored(chunk[0, -1], is_latent) for chunk in chunks])
        for chunks in ([each.noised for each in seen], [each.predicted for each in seen])
    )
    features = np.stack([each.own for each in seen])
    variables = {
        "features": (("clip", "step", "layer", "token", "channel_of_token"), features[None]),
        "noised": (by_step, noised[None], about),
        "predicted": (by_step, predicted[None], about),
        "truth": (("clip", *PICTURE), as_stored(video[0, -1], is_latent)[None], about),
    }
    attrs = {"frame": probed_clip.frames - 1, "latent": int(is_latent), "patch": model.geometry.patch}
    return xr.Dataset(variables, coords, attrs)


def _picture(patches: Float[Tensor, "n m"], shown: xr.Dataset) -> Float[Tensor, "c h w"]:
    """One frame, from a patch for each of its tokens."""
    patch, rows = int(shown.attrs["patch"]), shown.sizes["row"] // int(shown.attrs["patch"])
    return rearrange(patches, "(h w) (c p q) -> c (h p) (w q)", h=rows, p=patch, q=patch)


def steps_of(settings: Settings) -> list[int]:
    """The denoising steps at which frames are read, evenly with the first and the last."""
    return _even(list(range(settings.steps)), STEPS)


def chunks_of(run: RunShape) -> list[int]:
    """The first frames of the chunks after the context."""
    return [chunk * run.chunk for chunk in range(run.chunks - run.drawn, run.chunks)]


def _even(values: list, count: int) -> list:
    """At most `count` of them, evenly spaced, with the first and the last."""
    return [values[place] for place in even_places(len(values), count)]


def _is_made(run: RunShape) -> bool:
    """Whether the features of a shown clip are few enough, or the settings name this experiment."""
    cells = len(steps_of(run.settings)) * min(LAYERS, run.layers + 1)
    size = FLOAT32 * cells * run.d_model * run.tokens // run.chunk
    return size <= MOST_BYTES or "x0_lens" in run.settings.experiments
