"""What two noise draws agree on: the same context and sigma, by layer.

At sigma 1 the input contains nothing of the frame, so what agrees was computed from the past. The null: the
same two draws with two different clips as past.
"""

from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from framelens.analyses.noise_invariance import compare_tokens
from framelens.analyses.points import layer_of
from framelens.analyses.sums.token_cosines import largest_shares
from framelens.analyses.sums.token_sample import STDERR, half_difference, spread_tokens
from framelens.diffusion.contract import CausalDiffuser, traits
from framelens.diffusion.own_tokens import own_tokens
from framelens.diffusion.sampler import ForwardPass
from framelens.diffusion.schedule import add_noise
from framelens.hooks.trace import Trace
from framelens.probes.chunk.layers import select_patterns
from framelens.probes.run.costs import Evaluations
from framelens.probes.run.finite import require_finite_features
from framelens.probes.run.probed_clip import Clip, ProbedClip
from framelens.probes.run.settings import Settings
from framelens.probes.run.shape import NETWORK_COUNT, RunShape

SIGMAS = (1.0, 0.75, 0.5, 0.25, 0.05)
POINTS = ("hook_embed", "blocks.*.hook_resid_post")


ABOUT = {
    "centred_cosine": "cosine of the features of two noise draws in one context, mean tokens removed",
    "token_cosine": "cosine of a token of two noise draws in one context, median tokens removed; the mean",
    "token_cosine_median": "the same, the median over tokens",
    "other_context": "centred_cosine, but the second draw in another clip's context: the null",
    "other_context_token_cosine": "token_cosine, but the second draw in another clip's context: the null",
    "other_context_token_cosine_median": "the same, median over tokens",
    "token_share": "largest share of the squared norm of the features that one token has",
    "channel_share": "largest share of the squared norm of the features that one channel has",
}
"""What is measured, each at every layer and sigma."""


def measure(probed_clip: ProbedClip) -> dict[str, xr.Dataset]:
    """`noise_invariance`, (clip, network, frame, layer, sigma): the measures of ABOUT.

    Where they are measured on part of the tokens, also the standard error of each from sampling them.
    """
    networks, points = [], []
    for model in probed_clip.networks.values():
        values, points = _of_network(probed_clip, model)
        networks.append(values)
    dims = ("clip", "network", "frame", "layer", "sigma")
    variables = {}
    for name in networks[0]:
        table = np.stack([values[name] for values in networks])[None].swapaxes(3, 4)
        plain = name.removesuffix(STDERR)
        about = ABOUT[name] if name == plain else f"standard error of {plain} from sampling tokens"
        variables[name] = (dims, table, {"units": "1", "long_name": about})
    coords = {
        "network": list(probed_clip.networks),
        "frame": probed_clip.probed,
        "layer": [layer_of(point) for point in points],
        "point": ("layer", points),
        "sigma": list(SIGMAS),
    }
    return {"noise_invariance": xr.Dataset(variables, coords)}


def evaluations(run: RunShape) -> Evaluations:
    """Two draws with one past, one with the other, at every sigma and probed chunk; both clips encoded."""
    passes = NETWORK_COUNT * len(run.probed) * len(SIGMAS) * 3
    return Evaluations(passes * run.layers, NETWORK_COUNT * 2 * run.encoding(run.chunks - 1))


def kept_bytes(run: RunShape) -> int:
    """Two pasts, and the residual streams of three passes in float32."""
    return 2 * run.cache_bytes(run.chunks) + 3 * run.residual_bytes(value_bytes=4)


@torch.no_grad()
def _of_network(probed_clip: ProbedClip, model: CausalDiffuser) -> tuple[dict[str, np.ndarray], list[str]]:
    """Each measure [frame, sigma, layer] of one network, and the hook points of the layers."""
    contexts = {"own": _start(model, probed_clip.clip), "other": _start(model, probed_clip.other)}
    table, points = [], []
    for frame in probed_clip.chunks:
        if frame in probed_clip.probed:
            rows = [_at(probed_clip, model, contexts, frame, sigma) for sigma in SIGMAS]
            table.append([list(row.values()) for row in rows])
            points = list(rows[0])
        if frame < probed_clip.chunks[-1]:
            for name, clip in (("own", probed_clip.clip), ("other", probed_clip.other)):
                contexts[name] = model.encode(clip.video[:, probed_clip.span(frame)], contexts[name])
    names = table[0][0][0]
    return {name: _column(table, name) for name in names}, points


def _column(table: list[list[list[dict[str, float]]]], name: str) -> np.ndarray:
    return np.array([[[cell[name] for cell in row] for row in rows] for rows in table], np.float32)


def _start(model: CausalDiffuser, clip: Clip) -> Any:
    return model.start(1, clip.cond)


def _at(
    probed_clip: ProbedClip, model: CausalDiffuser, contexts: dict, frame: int, sigma: float
) -> dict[str, dict[str, float]]:
    """The measures by hook point, at one frame and sigma."""
    first = _features(probed_clip, model, contexts["own"], frame, sigma, draw=1)
    second = _features(probed_clip, model, contexts["own"], frame, sigma, draw=2)
    elsewhere = _features(probed_clip, model, contexts["other"], frame, sigma, draw=2)
    return {
        point: _on_sample(first[point], second[point], elsewhere[point], probed_clip.settings)
        for point in first
    }


def _on_sample(first: Tensor, second: Tensor, elsewhere: Tensor, settings: Settings) -> dict[str, float]:
    """The measures of maps [n d] on the settings' tokens; of a sample also their errors from sampling."""
    chosen = spread_tokens(len(first), settings.tokens, settings.seed).to(first.device)
    found = _compare(first[chosen], second[chosen], elsewhere[chosen])
    if settings.tokens is None:
        return found
    share, halves = len(chosen) / len(first), (chosen[0::2], chosen[1::2])
    if share == 1:
        return found | {f"{name}{STDERR}": 0.0 for name in found}
    one, other = (_compare(first[half], second[half], elsewhere[half]) for half in halves)
    errors = {f"{name}{STDERR}": half_difference(one[name], other[name], share) for name in found}
    return found | errors


def _compare(first: Tensor, second: Tensor, elsewhere: Tensor) -> dict[str, float]:
    """The measures of ABOUT, of maps [n d] of two draws in one context and of one draw in another."""
    measures = compare_tokens(first, second)
    null = compare_tokens(first, elsewhere)
    measures["other_context"] = null.pop("centred_cosine")
    measures |= {f"other_context_{name}": value for name, value in null.items()}
    measures |= largest_shares(first)
    return {name: float(value) for name, value in measures.items()}


def _features(
    probed_clip: ProbedClip, model: CausalDiffuser, context: Any, frame: int, sigma: float, draw: int
) -> dict[str, Tensor]:
    """The residual stream of every layer, [n d], for one noise draw on this clip's chunk."""
    span = probed_clip.span(frame)
    clean = probed_clip.clip.video[:, span]
    x = add_noise(
        clean, probed_clip.noise("noise_invariance", draw)[:, span], clean.new_full(clean.shape[:2], sigma)
    )
    return residual_stream(model, x, sigma, context, frame)


def residual_stream(
    model: CausalDiffuser, x: Tensor, sigma: float, context: Any, frame: int
) -> dict[str, Tensor]:
    """The chunk's own tokens in every layer that runs in one denoising pass of one clip, {point: [n d]}."""
    return watch_pass(model, x, sigma, context, frame)[0]


def watch_pass(
    model: CausalDiffuser, x: Tensor, sigma: float, context: Any, frame: int
) -> tuple[dict[str, Tensor], Tensor]:
    """The residual stream of that pass, and its velocity."""
    kept: dict[str, Tensor] = {}
    stack = traits(model).denoising_stack
    points = select_patterns(model, [stack + point for point in POINTS])

    def keep(_at, name: str, value: Tensor) -> None:
        kept[name] = own_tokens(model, name, value, clips=1)[0].float().clone()

    with Trace(model.hook_dict, points, keep) as trace:
        trace.on_pass(ForwardPass(frame, 0, sigma, "denoise"))
        velocity = model.denoise(x, torch.full((1,), sigma, device=x.device), context)
    require_finite_features(model, kept, f"frame {frame}, sigma {sigma:g}")
    return kept, velocity
