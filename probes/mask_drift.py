"""What a frame-causal mask changes in a model that is not causal, within a chunk or over a whole clip.

    drift = mask_drift(model, x, sigma, context)            # x [b f c h w], all frames denoised together

A mask that changes little in each layer alone can change much through the stack. A frame-wise causal model
has no later frame in a pass, so nothing changes in it.
"""

from typing import Any

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from analyses.noise_invariance import noise_invariance
from diffusion.sampler import ForwardPass
from hooks.attention_edit import AttentionCall, AttentionEdit, frame_causal
from probes._layers import Layers

ABOUT = {
    "relative_l2": "distance from the unmasked residual stream behind a layer, over that one's norm",
    "centred_cosine": "cosine with the unmasked residual stream behind a layer, mean tokens removed",
}


@torch.no_grad()
def mask_drift(
    model: Any, x: Float[Tensor, "b f c h w"], sigma: float, context: Any, frame: int = 0
) -> xr.Dataset:
    """(clip, scope, layer): relative_l2 and centred_cosine behind each layer.

    Scope "alone": the layer itself is masked, no other. "through": all layers are. `frame` is the first of
    the frames in x.
    """
    layers = Layers(model)
    plain = _residual(model, layers, x, sigma, context, frame, [])
    through = _residual(model, layers, x, sigma, context, frame, list(range(len(layers))))
    alone = [
        _residual(model, layers, x, sigma, context, frame, [layer])[layer] for layer in range(len(layers))
    ]
    scopes = {"alone": alone, "through": through}
    by_scope = [
        [_compared(value, reference) for value, reference in zip(values, plain, strict=True)]
        for values in scopes.values()
    ]
    table = torch.stack([torch.stack(rows) for rows in by_scope])  # [scope layer variable clip]
    variables = {
        name: (
            ("clip", "scope", "layer"),
            table[:, :, index].permute(2, 0, 1).float().cpu().numpy(),
            {"units": "1", "long_name": text},
        )
        for index, (name, text) in enumerate(ABOUT.items())
    }
    coords = {
        "scope": list(scopes),
        "layer": list(range(len(layers))),
        "point": ("layer", layers.names),
    }
    return xr.Dataset(variables, coords, {"sigma": sigma})


def _residual(
    model: Any, layers: Layers, x: Tensor, sigma: float, context: Any, frame: int, masked: list[int]
) -> list[Tensor]:
    """The residual stream behind each layer, [b n d], with a frame-causal mask in some of them."""
    frames = x.shape[1]

    def mask(_at: Any, _name: str, call: AttentionCall) -> Tensor:
        return frame_causal(call, frames)

    inside = tuple(f"{layers.names[layer]}." for layer in masked)
    edits = {name: mask for name in model.attn_dict if name.startswith(inside)}
    at = ForwardPass(frame, 0, sigma, "denoise")
    level = torch.full((len(x),), sigma, device=x.device)
    with layers.recorded() as (on_pass, kept):
        on_pass(at)
        if edits:
            with AttentionEdit(model.attn_dict, edits) as edit:
                edit.on_pass(at)
                model.denoise(x, level, context)
        else:
            model.denoise(x, level, context)
    return kept[1:]


def _compared(value: Tensor, reference: Tensor) -> Float[Tensor, "variable b"]:
    value, reference = value.double(), reference.double()
    distance = (value - reference).flatten(1).norm(dim=1) / reference.flatten(1).norm(dim=1)
    return torch.stack([distance, noise_invariance(value, reference)])
