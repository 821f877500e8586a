"""The forward passes of the released code of SCD and FAR, written from their description for one clip.

Plain float64 loops over a state dict in the released layout, one full masked pass without caches, so that
nothing is shared with our networks: an error in names, order or position has no way to cancel.
"""

import math

import torch
from torch import Tensor

AXES = (16, 24, 24)
FUSED_AS_TOKENS = ("token_concat", "token_concat_with_proj")


def stack_shapes(
    width: int, values: int, layers: int, table: tuple[str, int] | None, norm_out: bool = True
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of one stack without its output; table is ("action" or "label", rows)."""
    linears = {
        "x_embedder": (width, values),
        "timestep_embedder.linear_1": (width, 256),
        "timestep_embedder.linear_2": (width, width),
    }
    vectors = {}
    for i in range(layers):
        block = f"transformer_blocks.{i}"
        linears |= {f"{block}.{norm}.linear": (3 * width, width) for norm in ("norm1", "norm2")}
        linears |= {f"{block}.attn.{part}": (width, width) for part in ("to_q", "to_k", "to_v", "to_out.0")}
        linears |= {f"{block}.mlp.net.0.proj": (4 * width, width), f"{block}.mlp.net.2": (width, 4 * width)}
        vectors |= {f"{block}.attn.{norm}.weight": (64,) for norm in ("norm_q", "norm_k")}
    if norm_out:
        linears["norm_out.linear"] = (2 * width, width)
    shapes = vectors | _with_biases(linears)
    if table is not None:
        shapes[f"{table[0]}_embedder.embedding_table.weight"] = (table[1], width)
    return shapes


def far_shapes(width: int, values: int, layers: int, table=None) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a FAR checkpoint."""
    return stack_shapes(width, values, layers, table) | _with_biases({"proj_out": (values, width)})


def scd_shapes(
    width: int, values: int, encoder: int, decoder: int, combine: str, table=None, norm_out: bool = True
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of an SCD checkpoint; `combine` is named as in the released code."""
    half = far_shapes(width, values, decoder, table)
    if combine == "concat":
        half |= _with_biases({"decoder_input_proj": (width, 2 * width)})
    if combine == "token_concat_with_proj":
        half |= {"decoder_alignment.0.weight": (width,), "decoder_alignment.0.bias": (width,)}
        half |= _with_biases({"decoder_alignment.1": (width, width)})
    shapes = {f"encoder.{n}": s for n, s in stack_shapes(width, values, encoder, table, norm_out).items()}
    return shapes | {f"decoder.{name}": shape for name, shape in half.items()}


def _with_biases(linears: dict[str, tuple[int, int]]) -> dict[str, tuple[int, ...]]:
    return {f"{n}.weight": s for n, s in linears.items()} | {f"{n}.bias": s[:1] for n, s in linears.items()}


def scd(state: dict, combine: str, past: Tensor, noisy: Tensor, t: float, cond, patch: int = 1) -> Tensor:
    """The velocity [c h w] of the frame after past [f c h w]; cond is f + 1 actions, one label, or None."""
    encoder, decoder = _part(state, "encoder."), _part(state, "decoder.")
    frames = len(past)
    # The encoder's action of a frame is the one that leads to the next frame.
    cond_of_past = cond[1:] if isinstance(cond, list) else cond
    features = _stack(
        encoder, _embedded(encoder, past, patch), range(frames), [-1.0] * frames, cond_of_past, past, patch
    )
    tokens = _embedded(decoder, noisy[None], patch)
    context = features[-len(tokens) :]
    if combine == "token_concat_with_proj":
        weight, bias = decoder["decoder_alignment.0.weight"], decoder["decoder_alignment.0.bias"]
        context = _linear(decoder, "decoder_alignment.1", _layer_norm(context, 1e-5) * weight + bias)
    if combine == "concat":
        tokens = _linear(decoder, "decoder_input_proj", torch.cat([tokens, context], dim=1))
    if combine == "add":
        tokens = tokens + context
    numbers = [0]
    if combine in FUSED_AS_TOKENS:
        # Both halves are at frame 0, at the same rows and columns, with the frame's timestep and action.
        tokens, numbers = torch.cat([context, tokens]), [0, 0]
    own = [cond[-1]] * len(numbers) if isinstance(cond, list) else cond
    times = [t] * len(numbers)
    tokens = _stack(decoder, tokens, numbers, times, own, noisy[None], patch, everyone_sees_everyone=True)
    return _unpacked(_linear(decoder, "proj_out", tokens)[-len(context) :], noisy, patch)


def far(state: dict, past: Tensor, noisy: Tensor, t: float, cond, patch: int = 1) -> Tensor:
    """The velocity [c h w] of the frame after past [f c h w], f from 0 on; cond as for SCD."""
    state, video = _part(state, ""), torch.cat([past, noisy[None]])
    times = [-1.0] * len(past) + [t]
    tokens = _embedded(state, video, patch)
    tokens = _stack(state, tokens, range(len(video)), times, cond, video, patch)
    return _unpacked(_linear(state, "proj_out", tokens)[-len(tokens) // len(video) :], noisy, patch)


def _part(state: dict, prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): w.double() for name, w in state.items() if name.startswith(prefix)}


def _embedded(s: dict, video: Tensor, patch: int) -> Tensor:
    """Tokens [n d] ordered (frame, row, col), values of a token ordered (channel, row, col)."""
    rows, cols = video.shape[-2] // patch, video.shape[-1] // patch
    tokens = [
        frame[:, i * patch : (i + 1) * patch, j * patch : (j + 1) * patch].flatten()
        for frame in video.double()
        for i in range(rows)
        for j in range(cols)
    ]
    return _linear(s, "x_embedder", torch.stack(tokens))


def _unpacked(tokens: Tensor, like: Tensor, patch: int) -> Tensor:
    out, cols = torch.zeros_like(like, dtype=torch.float64), like.shape[-1] // patch
    for place, token in enumerate(tokens):
        i, j = patch * (place // cols), patch * (place % cols)
        out[:, i : i + patch, j : j + patch] = token.view(like.shape[0], patch, patch)
    return out


def _stack(s, x, numbers, times, cond, video, patch, everyone_sees_everyone=False) -> Tensor:
    """x [n d] after blocks and final norm; numbers, times and cond are those of its frames."""
    rows, cols = video.shape[-2] // patch, video.shape[-1] // patch
    places = [(number, i, j) for number in numbers for i in range(rows) for j in range(cols)]
    owner = torch.arange(len(numbers)).repeat_interleave(rows * cols)
    sees = (owner[None] <= owner[:, None]) | everyone_sees_everyone
    temb = torch.stack(
        [_temb(s, t, cond[f] if isinstance(cond, list) else cond) for f, t in enumerate(times)]
    )
    temb = _silu(temb[owner])
    layers = {name.split(".")[1] for name in s if name.startswith("transformer_blocks.")}
    for layer in range(len(layers)):
        block = f"transformer_blocks.{layer}"
        shift, scale, gate = _linear(s, f"{block}.norm1.linear", temb).chunk(3, dim=1)
        x = x + gate * _attention(s, f"{block}.attn", _layer_norm(x) * (1 + scale) + shift, places, sees)
        shift, scale, gate = _linear(s, f"{block}.norm2.linear", temb).chunk(3, dim=1)
        hidden = _linear(s, f"{block}.mlp.net.0.proj", _layer_norm(x) * (1 + scale) + shift)
        x = x + gate * _linear(s, f"{block}.mlp.net.2", _gelu(hidden))
    if "norm_out.linear.weight" not in s:
        return _layer_norm(x)
    scale, shift = _linear(s, "norm_out.linear", temb).chunk(2, dim=1)
    return _layer_norm(x) * (1 + scale) + shift


def _temb(s: dict, t: float, condition: int | None) -> Tensor:
    angles = torch.tensor([t * 10000 ** (-i / 127) for i in range(128)], dtype=torch.float64)
    sinusoid = torch.cat([angles.cos(), angles.sin()])
    temb = _linear(s, "timestep_embedder.linear_2", _silu(_linear(s, "timestep_embedder.linear_1", sinusoid)))
    for name, table in s.items():
        if name.endswith("embedding_table.weight"):
            temb = temb + table[condition]
    return temb


def _attention(s: dict, name: str, x: Tensor, places: list, sees: Tensor) -> Tensor:
    q, k, v = (_linear(s, f"{name}.{part}", x) for part in ("to_q", "to_k", "to_v"))
    heads = []
    for start in range(0, x.shape[1], 64):
        own = slice(start, start + 64)
        queries = _rotated(_rms_norm(q[:, own], s[f"{name}.norm_q.weight"]), places)
        keys = _rotated(_rms_norm(k[:, own], s[f"{name}.norm_k.weight"]), places)
        scores = (queries @ keys.T / 8).masked_fill(~sees, -math.inf)
        heads.append(scores.softmax(dim=1) @ v[:, own])
    return _linear(s, f"{name}.to_out.0", torch.cat(heads, dim=1))


def _rotated(x: Tensor, places: list) -> Tensor:
    """Each pair of neighbouring channels turned as a complex number."""
    turned, first = torch.empty_like(x), 0
    for axis, width in enumerate(AXES):
        at = torch.tensor([float(place[axis]) for place in places], dtype=torch.float64)
        for pair in range(width // 2):
            angle = at * 10000 ** (-2 * pair / width)
            real, imaginary = x[:, first], x[:, first + 1]
            turned[:, first] = real * angle.cos() - imaginary * angle.sin()
            turned[:, first + 1] = imaginary * angle.cos() + real * angle.sin()
            first += 2
    return turned


def _linear(s: dict, name: str, x: Tensor) -> Tensor:
    return x @ s[f"{name}.weight"].T + s[f"{name}.bias"]


def _layer_norm(x: Tensor, eps: float = 1e-6) -> Tensor:
    centred = x - x.mean(dim=-1, keepdim=True)
    return centred / (centred.square().mean(dim=-1, keepdim=True) + eps).sqrt()


def _rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    return x / (x.square().mean(dim=-1, keepdim=True) + 1e-6).sqrt() * weight


def _silu(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))


def _gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
