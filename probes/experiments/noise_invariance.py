"""What two noise draws agree on: the same context and sigma, by layer.

At sigma 1 the input says nothing of the frame, so what agrees was computed from the past. Its null: the
same two draws in two different clips' pasts.
"""

from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from framelens.analyses.noise_invariance import noise_invariance
from framelens.analyses.points import layer_of
from framelens.analyses.sums.token_sample import STDERR, half_difference, spread_tokens
from framelens.diffusion.contract import CausalDiffuser, traits
from framelens.diffusion.own_tokens import own_tokens
from framelens.diffusion.sampler import ForwardPass
from framelens.diffusion.schedule import noised
from framelens.hooks.trace import Trace
from framelens.probes.run.costs import Evaluations
from framelens.probes.run.settings import Settings
from framelens.probes.run.shape import NETWORK_COUNT, RunShape
from framelens.probes.run.subject import Clip, Subject

SIGMAS = (1.0, 0.75, 0.5, 0.25, 0.05)
POINTS = ("hook_embed", "blocks.*.hook_resid_post")


def measure(subject: Subject) -> dict[str, xr.Dataset]:
    """`noise_invariance`, (clip, network, frame, layer, sigma): centred_cosine, other_context; where it is
    measured on part of the tokens also the standard error of each from sampling them."""
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
    about |= {f"{name}{STDERR}": f"standard error of {name} from sampling tokens" for name in about}
    variables = {
        name: (dims, values, {"units": "1", "long_name": text})
        for (name, text), values in zip(about.items(), table, strict=False)
    }
    coords = {
        "network": list(subject.networks),
        "frame": subject.probed,
        "layer": [layer_of(point) for point in points],
        "point": ("layer", points),
        "sigma": list(SIGMAS),
    }
    return {"noise_invariance": xr.Dataset(variables, coords)}


def evaluations(run: RunShape) -> Evaluations:
    """Two draws in one past and one in the other, at every sigma and probed chunk; both clips remembered."""
    passes = NETWORK_COUNT * len(run.probed) * len(SIGMAS) * 3
    return Evaluations(passes * run.layers, NETWORK_COUNT * 2 * run.encoding(run.chunks - 1))


def kept_bytes(run: RunShape) -> int:
    """Two pasts, and the residual streams of three passes in float32."""
    return 2 * run.cache_bytes(run.chunks) + 3 * run.residual_bytes(value_bytes=4)


@torch.no_grad()
def _of_network(subject: Subject, model: CausalDiffuser) -> tuple[np.ndarray, list[str]]:
    """[variable, frame, sigma, layer] of one network, and the points behind the layers."""
    contexts = {"own": _start(model, subject.clip), "other": _start(model, subject.other)}
    table, points = [], []
    for frame in subject.chunks:
        if frame in subject.probed:
            rows = [_at(subject, model, contexts, frame, sigma) for sigma in SIGMAS]
            table.append([row for row, _ in rows])
            points = rows[0][1]
        if frame < subject.chunks[-1]:
            for name, clip in (("own", subject.clip), ("other", subject.other)):
                contexts[name] = model.encode(clip.video[:, subject.span(frame)], contexts[name])
    return np.array(table, np.float32).transpose(2, 0, 1, 3), points


def _start(model: CausalDiffuser, clip: Clip) -> Any:
    return model.start(1, clip.cond)


def _at(
    subject: Subject, model: CausalDiffuser, contexts: dict, frame: int, sigma: float
) -> tuple[list, list[str]]:
    """centred_cosine and other_context by layer, at one frame and sigma, and the errors of sampling."""
    first = _features(subject, model, contexts["own"], frame, sigma, draw=1)
    second = _features(subject, model, contexts["own"], frame, sigma, draw=2)
    elsewhere = _features(subject, model, contexts["other"], frame, sigma, draw=2)
    rows = [
        [_on_sample(first[point], other[point], subject.settings) for point in first]
        for other in (second, elsewhere)
    ]
    is_sampled = subject.settings.tokens is not None
    return [[cell[part] for cell in row] for part in range(1 + is_sampled) for row in rows], list(first)


def _on_sample(a: Tensor, b: Tensor, settings: Settings) -> tuple[float, float]:
    """The noise invariance of two maps [n d] on the settings' tokens, and its error from sampling them."""
    chosen = spread_tokens(len(a), settings.tokens, settings.seed).to(a.device)
    whole, share = noise_invariance(a[chosen], b[chosen]), len(chosen) / len(a)
    if share == 1:
        return float(whole), 0.0
    one, other = (noise_invariance(a[half], b[half]) for half in (chosen[0::2], chosen[1::2]))
    return float(whole), float(half_difference(one, other, share))


def _features(
    subject: Subject, model: CausalDiffuser, context: Any, frame: int, sigma: float, draw: int
) -> dict[str, Tensor]:
    """The residual stream of every layer, [n d], for one noise draw on this clip's chunk."""
    span = subject.span(frame)
    clean = subject.clip.video[:, span]
    x = noised(
        clean, subject.noise("noise_invariance", draw)[:, span], clean.new_full(clean.shape[:2], sigma)
    )
    return residual_stream(model, x, sigma, context, frame)


def residual_stream(
    model: CausalDiffuser, x: Tensor, sigma: float, context: Any, frame: int
) -> dict[str, Tensor]:
    """The chunk's own tokens in every layer that runs in one denoising pass of one clip, {point: [n d]}."""
    kept: dict[str, Tensor] = {}
    stack = traits(model).denoising_stack

    def keep(_at, name: str, value: Tensor) -> None:
        kept[name] = own_tokens(model, name, value)[0].float().clone()

    with Trace(model.hook_dict, [stack + point for point in POINTS], keep) as trace:
        trace.on_pass(ForwardPass(frame, 0, sigma, "denoise"))
        model.denoise(x, torch.full((1,), sigma, device=x.device), context)
    return kept
