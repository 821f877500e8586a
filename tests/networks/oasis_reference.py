"""Oasis restated by hand, all frames of the window at once and with every mask explicit. For tests only."""

import math

import torch
import torch.nn.functional as F
from einops import rearrange, repeat


def weights(width=32, heads=2, blocks=2, channels=3, patch=2, actions=25, seed=0):
    """A random state dict in the released layout, with the frequencies under one shared name each."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {
        "x_embedder.proj": (width, channels, patch, patch),
        "t_embedder.mlp.0": (width, 256),
        "t_embedder.mlp.2": (width, width),
        "external_cond": (width, actions),
        "final_layer.linear": (patch * patch * channels, width),
        "final_layer.adaLN_modulation.1": (2 * width, width),
    }
    for block in range(blocks):
        for half in (f"blocks.{block}.s_", f"blocks.{block}.t_"):
            shapes |= {
                f"{half}attn.to_qkv": (3 * width, width),
                f"{half}attn.to_out": (width, width),
                f"{half}mlp.fc1": (4 * width, width),
                f"{half}mlp.fc2": (width, 4 * width),
                f"{half}adaLN_modulation.1": (6 * width, width),
            }
    made = {}
    for name, shape in shapes.items():
        made[f"{name}.weight"] = 0.2 * torch.randn(shape, generator=generator, dtype=torch.float32)
        if not name.endswith("to_qkv"):
            made[f"{name}.bias"] = 0.2 * torch.randn(shape[0], generator=generator, dtype=torch.float32)
    head = width // heads
    made["blocks.0.s_attn.rotary_emb.freqs"] = torch.linspace(1, 128, head // 4) * math.pi
    made["blocks.0.t_attn.rotary_emb.freqs"] = 10000 ** (-torch.arange(0, head, 2) / head)
    return {name: weight.to(torch.float32).to(torch.get_default_dtype()) for name, weight in made.items()}


def linear(w, name, x):
    return F.linear(x, w[f"{name}.weight"], w.get(f"{name}.bias"))


def rotate(x, angles):
    """Neighbouring channels (u, v) of x [... d] to (u cos - v sin, v cos + u sin)."""
    u, v = x[..., 0::2], x[..., 1::2]
    return torch.stack(
        [u * angles.cos() - v * angles.sin(), v * angles.cos() + u * angles.sin()], -1
    ).flatten(-2)


def attend(w, name, x, angles, hidden, heads):
    """x [... n d] with angles [n pairs]; `hidden` [n n] is True where a key is not seen."""
    q, k, v = rearrange(linear(w, f"{name}.to_qkv", x), "... n (p h d) -> p ... h n d", p=3, h=heads)
    scores = rotate(q, angles) @ rotate(k, angles).mT / math.sqrt(q.shape[-1])
    z = scores.masked_fill(hidden, -torch.inf).softmax(-1) @ v
    return linear(w, f"{name}.to_out", rearrange(z, "... h n d -> ... n (h d)"))


def half(w, name, x, condition, attention):
    """x [b t n d] after attention and MLP; condition [b t d]."""
    parts = linear(w, f"{name}adaLN_modulation.1", F.silu(condition))[:, :, None].chunk(6, -1)
    for shift, scale, gate, layer in ((*parts[:3], attention), (*parts[3:], mlp(w, name))):
        x = x + gate * layer(F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift)
    return x


def mlp(w, name):
    return lambda x: linear(w, f"{name}mlp.fc2", F.gelu(linear(w, f"{name}mlp.fc1", x), approximate="tanh"))


def network(w, x, level, actions, heads=2):
    """v of every frame: x [b t c h w], level [b t], actions [b t a]."""
    count, patch = x.shape[1], w["x_embedder.proj.weight"].shape[-1]
    rows, cols = x.shape[-2] // patch, x.shape[-1] // patch
    tokens = F.conv2d(x.flatten(0, 1), w["x_embedder.proj.weight"], w["x_embedder.proj.bias"], stride=patch)
    tokens = rearrange(tokens, "(b t) d h w -> b t (h w) d", t=count)
    angles = level[..., None].float() * torch.exp(-math.log(10000) * torch.arange(128) / 128)
    condition = linear(w, "t_embedder.mlp.0", torch.cat([angles.cos(), angles.sin()], -1))
    condition = linear(w, "t_embedder.mlp.2", F.silu(condition)) + linear(w, "external_cond", actions)
    space, time = (w[f"blocks.0.{kind}_attn.rotary_emb.freqs"] for kind in "st")
    row = repeat(torch.linspace(-1, 1, rows)[:, None] * space, "h f -> (h w) f", w=cols)
    col = repeat(torch.linspace(-1, 1, cols)[:, None] * space, "w f -> (h w) f", h=rows)
    places, numbers = torch.cat([row, col], -1), torch.arange(count)[:, None] * time
    nothing = torch.zeros(rows * cols, rows * cols, dtype=torch.bool)
    later = torch.ones(count, count, dtype=torch.bool).triu(1)
    for block in range(sum(name.endswith("s_mlp.fc1.bias") for name in w)):
        s, t = f"blocks.{block}.s_", f"blocks.{block}.t_"
        tokens = half(w, s, tokens, condition, lambda y: attend(w, f"{s}attn", y, places, nothing, heads))  # noqa: B023

        def along(y, t=t):
            y = attend(w, f"{t}attn", y.transpose(1, 2), numbers, later, heads)
            return y.transpose(1, 2)

        tokens = half(w, t, tokens, condition, along)
    shift, scale = linear(w, "final_layer.adaLN_modulation.1", F.silu(condition))[:, :, None].chunk(2, -1)
    values = linear(
        w,
        "final_layer.linear",
        F.layer_norm(tokens, tokens.shape[-1:], eps=1e-6) * (1 + scale) + shift,
    )
    return rearrange(values, "b t (h w) (p q c) -> b t c (h p) (w q)", h=rows, w=cols, p=patch, q=patch)


def shares():
    """Share of signal at each of 1000 levels: the sigmoid schedule by its betas, at most 0.999."""
    left = torch.sigmoid(torch.tensor(3.0)) - torch.sigmoid(torch.linspace(-3, 3, 1001, dtype=torch.float64))
    betas = (1 - left[1:] / left[:-1]).clamp(0, 0.999)
    return (1 - betas.float()).cumprod(0)


def sampled(w, first, noise, actions, levels, max_frames, told=14):
    """A video after the first frame: each step computes the whole window, then continues by DDIM."""
    share, video = shares(), first
    for frame in range(1, noise.shape[1]):
        x, start = noise[:, frame : frame + 1], max(0, frame + 1 - max_frames)
        for level, following in zip(levels, [*levels[1:], None], strict=True):
            window = torch.cat([video[:, start:], x], 1)
            told_levels = torch.full(window.shape[:2], told)
            told_levels[:, -1] = level
            v = network(w, window, told_levels, actions[:, start : frame + 1])[:, -1:]
            a, b = share[level].sqrt(), (1 - share[level]).sqrt()
            clean, eps = a * x - b * v, b * x + a * v
            left = torch.tensor(1.0) if following is None else share[following]
            x = left.sqrt() * clean + (1 - left).sqrt() * eps
        video = torch.cat([video, x], 1)
    return video
