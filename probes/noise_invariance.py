"""What two noise draws agree on: the same context and sigma, by layer.

At sigma 1 the input says nothing of the frame, so what agrees was computed from the past. Its null: the
same two draws in two different clips' pasts.
"""

from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from analyses.noise_invariance import noise_invariance
from analyses.points import layer_of
from diffusion.sampler import ForwardPass
from diffusion.schedule import noised
from hooks.trace import Trace
from probes.subject import Clip, Subject

SIGMAS = (1.0, 0.75, 0.5, 0.25, 0.05)
POINTS = ("hook_embed", "blocks.*.hook_resid_post")


def measure(subject: Subject) -> dict[str, xr.Dataset]:
    """`noise_invariance`, (clip, network, frame, layer, sigma): centred_cosine, other_context."""
    networks, points = [], []
    for model in subject.networks.values():
        values, points = _of_network(subject, model)
        networks.append(values)
    table = np.stack(networks, axis=1)[None]  # [clip, variable, network, frame, sigma, layer]
    table = table.transpose(1, 0, 2, 3, 5, 4)
    dims = ("clip", "network", "frame", "layer", "sigma")
    about = {
        "centred_cosine": "cosine of the features of two noise draws in one context, mean tokens removed",
        "other_context": "the same, but the second draw in another clip's context: the null",
    }
    variables = {
        name: (dims, values, {"units": "1", "long_name": text})
        for (name, text), values in zip(about.items(), table, strict=True)
    }
    coords = {
        "network": list(subject.networks),
        "frame": subject.probed,
        "layer": [layer_of(point) for point in points],
        "point": ("layer", points),
        "sigma": list(SIGMAS),
    }
    return {"noise_invariance": xr.Dataset(variables, coords)}


@torch.no_grad()
def _of_network(subject: Subject, model: Any) -> tuple[np.ndarray, list[str]]:
    """[variable, frame, sigma, layer] of one network, and the points behind the layers."""
    contexts = {"own": _start(model, subject.clip), "other": _start(model, subject.other)}
    table, points = [], []
    for frame in range(subject.frames):
        if frame in subject.probed:
            rows = [_at(subject, model, contexts, frame, sigma) for sigma in SIGMAS]
            table.append([row for row, _ in rows])
            points = rows[0][1]
        if frame < subject.frames - 1:
            for name, clip in (("own", subject.clip), ("other", subject.other)):
                contexts[name] = model.encode(clip.video[:, frame : frame + 1], contexts[name])
    return np.array(table, np.float32).transpose(2, 0, 1, 3), points


def _start(model: Any, clip: Clip) -> Any:
    return model.start(1, clip.cond)


def _at(subject: Subject, model: Any, contexts: dict, frame: int, sigma: float) -> tuple[list, list[str]]:
    """centred_cosine and other_context by layer, at one frame and sigma."""
    first = _features(subject, model, contexts["own"], frame, sigma, draw=1)
    second = _features(subject, model, contexts["own"], frame, sigma, draw=2)
    elsewhere = _features(subject, model, contexts["other"], frame, sigma, draw=2)
    rows = [[float(noise_invariance(first[p], other[p])) for p in first] for other in (second, elsewhere)]
    return rows, list(first)


def _features(
    subject: Subject, model: Any, context: Any, frame: int, sigma: float, draw: int
) -> dict[str, Tensor]:
    """The residual stream of every layer, [n d], for one noise draw on this clip's frame."""
    span = slice(frame, frame + 1)
    level = subject.clip.video.new_full((1, 1), sigma)
    x = noised(subject.clip.video[:, span], subject.noise(draw)[:, span], level)
    return residual_stream(model, x, sigma, context, frame)


def residual_stream(model: Any, x: Tensor, sigma: float, context: Any, frame: int) -> dict[str, Tensor]:
    """The residual stream of every layer that runs in one denoising pass of one clip, {point: [n d]}."""
    kept: dict[str, Tensor] = {}
    stack = getattr(model, "denoising_stack", "")

    def keep(_at, name: str, value: Tensor) -> None:
        kept[name] = value[0].float().clone()

    with Trace(model.hook_dict, [stack + point for point in POINTS], keep) as trace:
        trace.on_pass(ForwardPass(frame, 0, sigma, "denoise"))
        model.denoise(x, torch.full((1,), sigma, device=x.device), context)
    return kept
