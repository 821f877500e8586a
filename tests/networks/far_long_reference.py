"""The forward pass of the released code of FAR-Long, written from its description for one clip.

One masked pass over all frames without caches in plain float64, so that nothing is shared with our network:
neither which frames are coarse when, nor order, nor position.
"""

import math

import official_reference as far
import torch
from torch import Tensor


def shapes(width: int, channels: int, layers: int, coarse: int, patch: int = 1, rows: int = 0) -> dict:
    """Names and shapes of a FAR-Long checkpoint; `coarse` is the side of a coarse patch, rows of actions."""
    table = ("action", rows) if rows else None
    linears = {
        "context_embedder": (width, channels * coarse**2),
        "context_proj_out": (channels * coarse**2, width),
    }
    gains = {}
    for layer in range(layers):
        attn = f"transformer_blocks.{layer}.attn"
        linears |= {f"{attn}.add_{part}_proj": (width, width) for part in "qkv"}
        if layer < layers - 1:
            linears[f"{attn}.to_add_out"] = (width, width)
        gains |= {f"{attn}.norm_added_{part}.weight": (64,) for part in "qk"}
    weights = {f"{name}.weight": shape for name, shape in linears.items()}
    biases = {f"{name}.bias": shape[:1] for name, shape in linears.items()}
    return far.far_shapes(width, channels * patch**2, layers, table) | weights | biases | gains


def far_long(
    state: dict, past: Tensor, noisy: Tensor, t: float, actions, short: int, coarse: int, patch: int = 1
) -> Tensor:
    """The velocity [c h w] of the frame after past [f c h w]: the last of all, `short` of which are fine."""
    s = {name: weight.double() for name, weight in state.items()}
    video = torch.cat([past, noisy[None]]).double()
    far_frames = max(0, len(video) - short)
    tokens, places, owner, temb = [], [], [], []
    for number, frame in enumerate(video):
        is_far = number < far_frames
        side = coarse if is_far else patch
        time = -1.0 if number < len(past) else t
        embedder = "context_embedder" if is_far else "x_embedder"
        emb = far._temb(s, 2 * time if is_far else time, None if actions is None else actions[number])
        for i in range(frame.shape[1] // side):
            for j in range(frame.shape[2] // side):
                values = frame[:, i * side : (i + 1) * side, j * side : (j + 1) * side].flatten()
                tokens.append(far._linear(s, embedder, values))
                places.append((number, i * (side // patch), j * (side // patch)))
                owner.append(number)
                temb.append(emb)
    x, owner, temb = torch.stack(tokens), torch.tensor(owner), far._silu(torch.stack(temb))
    is_far = owner < far_frames
    for layer in range(len({name.split(".")[1] for name in s if name.startswith("transformer_blocks.")})):
        block = f"transformer_blocks.{layer}"
        shift, scale, gate = far._linear(s, f"{block}.norm1.linear", temb).chunk(3, dim=1)
        normed = far._layer_norm(x) * (1 + scale) + shift
        x = x + gate * _attention(s, f"{block}.attn", normed, places, owner, is_far)
        shift, scale, gate = far._linear(s, f"{block}.norm2.linear", temb).chunk(3, dim=1)
        normed = far._layer_norm(x) * (1 + scale) + shift
        hidden = far._gelu(far._linear(s, f"{block}.mlp.net.0.proj", normed))
        x = x + gate * far._linear(s, f"{block}.mlp.net.2", hidden)
    scale, shift = far._linear(s, "norm_out.linear", temb).chunk(2, dim=1)
    x = far._linear(s, "proj_out", (far._layer_norm(x) * (1 + scale) + shift)[owner == len(past)])
    return far._unpacked(x, noisy, patch)


def _attention(s: dict, name: str, x: Tensor, places: list, owner: Tensor, is_far: Tensor) -> Tensor:
    def chosen(of_far: Tensor, of_near: Tensor) -> Tensor:
        return torch.where(is_far[:, None], of_far, of_near)

    q, k, v = (
        chosen(far._linear(s, f"{name}.add_{part}_proj", x), far._linear(s, f"{name}.to_{part}", x))
        for part in "qkv"
    )
    gains = {
        part: chosen(s[f"{name}.norm_added_{part}.weight"], s[f"{name}.norm_{part}.weight"]) for part in "qk"
    }
    sees = owner[None] <= owner[:, None]
    heads = []
    for start in range(0, x.shape[1], 64):
        own = slice(start, start + 64)
        queries = far._rotated(far._rms_norm(q[:, own], gains["q"]), places)
        keys = far._rotated(far._rms_norm(k[:, own], gains["k"]), places)
        scores = (queries @ keys.T / 8).masked_fill(~sees, -math.inf)
        heads.append(scores.softmax(dim=1) @ v[:, own])
    z = torch.cat(heads, dim=1)
    out = far._linear(s, f"{name}.to_out.0", z)
    if f"{name}.to_add_out.weight" not in s:
        return chosen(z, out)
    return chosen(far._linear(s, f"{name}.to_add_out", z), out)
