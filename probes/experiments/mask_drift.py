"""What a frame-causal mask changes in a network whose frames see later frames, too, over a whole clip.

    drift = mask_drift(model, x, sigma, lambda x, sigma: model.bidirectional(x, sigma, cond))

A model is probed if it offers `bidirectional(x, sigma, cond)`: the velocity of all frames of a clip in one
unmasked pass, sigma [b]. A mask that changes little in each layer alone can change much through the stack.
"""

from collections.abc import Callable
from typing import Any

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from framelens.analyses.noise_invariance import noise_invariance
from framelens.diffusion.contract import CausalDiffuser, traits
from framelens.diffusion.own_tokens import own_tokens
from framelens.diffusion.sampler import ForwardPass
from framelens.diffusion.schedule import add_noise
from framelens.hooks.attention_edit import AttentionCall, AttentionEdit, mask_later_frames
from framelens.probes.chunk.layers import Layers
from framelens.probes.run.costs import Evaluations
from framelens.probes.run.probed_clip import ProbedClip, training_density
from framelens.probes.run.settings import Settings
from framelens.probes.run.shape import NETWORK_COUNT, RunShape
from framelens.records.progress import progress_bar

ABOUT = {
    "relative_l2": "distance from the unmasked residual stream after a layer, over the norm of that stream",
    "centred_cosine": "cosine with the unmasked residual stream after a layer, mean tokens removed",
}
LEVELS, QUICK_LEVELS = 3, 1
"""Number of noise levels; each is the middle of an equally likely part of the training density."""


def measure(probed_clip: ProbedClip) -> dict[str, xr.Dataset]:
    """`mask_drift`, (clip, network, sigma, scope, layer), of the true clip noised to each level.

    Nothing for a model without `bidirectional`; ValueError if the settings name this experiment.
    """
    trained = probed_clip.networks["trained"]
    if traits(trained).bidirectional is None:
        if "mask_drift" in probed_clip.settings.experiments:
            raise ValueError(
                "mask_drift has nothing to mask: the model generates one chunk after the other (it has no "
                "`bidirectional`); leave it out of --experiments"
            )
        return {}
    levels = training_density(trained).quantiles(levels_of(probed_clip.settings)).tolist()
    video, noise = probed_clip.clip.video, probed_clip.noise("mask_drift")
    by_network = []
    for model in probed_clip.networks.values():
        by_level, velocity = [], _velocity(model, probed_clip.clip.cond)
        for sigma in levels:
            x = add_noise(video, noise, video.new_full(video.shape[:2], sigma))
            by_level.append(mask_drift(model, x, sigma, velocity))
        by_network.append(xr.concat(by_level, "sigma", combine_attrs="drop_conflicts"))
    found = xr.concat(by_network, "network").assign_coords(network=list(probed_clip.networks), sigma=levels)
    found.sigma.attrs = {"units": "1", "long_name": "noise level of every frame; 1 is noise"}
    return {"mask_drift": found.transpose("clip", "network", "sigma", "scope", "layer")}


def evaluations(run: RunShape) -> Evaluations:
    """At each level one plain pass over the clip, one all masked, and one with each layer masked."""
    if not run.is_bidirectional:
        return Evaluations(0)
    passes = NETWORK_COUNT * levels_of(run.settings) * (run.layers + 2)
    return Evaluations(passes * run.layers * run.chunks)


def kept_bytes(run: RunShape) -> int:
    """The residual stream of the whole clip, plain, all masked and of the current pass."""
    return 3 * run.chunks * run.residual_bytes() if run.is_bidirectional else 0


def levels_of(settings: Settings) -> int:
    """Noise levels that are probed."""
    return QUICK_LEVELS if settings.quick else LEVELS


def _velocity(model: CausalDiffuser, cond: Tensor | None) -> Callable[[Tensor, Tensor], Tensor]:
    """The velocity of a whole clip, from x and sigma."""
    bidirectional = traits(model).bidirectional
    assert bidirectional is not None  # the random network is a copy of the trained one
    return lambda x, sigma: bidirectional(x, sigma, cond)


@torch.no_grad()
def mask_drift(
    model: CausalDiffuser,
    x: Float[Tensor, "b f c h w"],
    sigma: float,
    velocity: Callable[[Tensor, Tensor], Any],
) -> xr.Dataset:
    """(clip, scope, layer): relative_l2 and centred_cosine after each layer.

    `velocity(x, sigma)`, sigma [b], runs the model on all frames of x in one pass. Scope "alone": the layer
    itself is masked, no other. "through": all layers are.
    """
    layers, level = Layers(model), x.new_full((len(x),), sigma)
    every = list(range(len(layers)))

    def residual(masked: list[int]) -> list[Tensor]:
        return _residual(model, layers, x.shape[1], sigma, lambda: velocity(x, level), masked)

    plain, through = residual([]), residual(every)
    bar = progress_bar(every, desc=f"mask drift, sigma {sigma:.2f}", unit="layer", leave=False)
    alone = [residual([layer])[layer] for layer in bar]
    scopes = {"alone": alone, "through": through}
    by_scope = [
        [_compare(value, reference) for value, reference in zip(values, plain, strict=True)]
        for values in scopes.values()
    ]
    table = torch.stack([torch.stack(rows) for rows in by_scope])  # [scope layer variable clip]
    coords = {"scope": list(scopes), "layer": every, "point": ("layer", layers.names)}
    return xr.Dataset(_with_units(table), coords, {"sigma": sigma, "frames": x.shape[1]})


def _with_units(table: Float[Tensor, "scope layer variable clip"]) -> dict[str, tuple]:
    """The measures with their axes and units."""
    return {
        name: (
            ("clip", "scope", "layer"),
            table[:, :, index].permute(2, 0, 1).float().cpu().numpy(),
            {"units": "1", "long_name": text},
        )
        for index, (name, text) in enumerate(ABOUT.items())
    }


def _residual(
    model: CausalDiffuser,
    layers: Layers,
    frames: int,
    sigma: float,
    run: Callable[[], Any],
    masked: list[int],
) -> list[Tensor]:
    """The frames' tokens after each layer, [b n d], with a frame-causal mask in some of them."""

    def mask(_at: Any, _name: str, call: AttentionCall) -> Tensor:
        return mask_later_frames(call, frames)

    inside = tuple(f"{layers.names[layer]}." for layer in masked)
    edits = {name: mask for name in model.attn_dict if name.startswith(inside)}
    if masked and not edits:
        raise ValueError(
            f"no attention of {layers.names[masked[0]]} is in attn_dict; mask_drift has to mask it"
        )
    at = ForwardPass(0, 0, sigma, "denoise")
    with layers.record() as (on_pass, kept):
        on_pass(at)
        if edits:
            with AttentionEdit(model.attn_dict, edits) as edit:
                edit.on_pass(at)
                run()
        else:
            run()
    points = zip(layers.points[1:], kept[1:], strict=True)
    return [own_tokens(model, name, value, frames) for name, value in points]


def _compare(value: Tensor, reference: Tensor) -> Float[Tensor, "variable b"]:
    value, reference = value.double(), reference.double()
    distance = (value - reference).flatten(1).norm(dim=1) / reference.flatten(1).norm(dim=1)
    return torch.stack([distance, noise_invariance(value, reference)])
