"""A plain sampler of dense and separated networks, written here to be compared with ours.

    plain = PlainSampler(network)
    past = plain.start(batch=1)
    past = plain.encode(frame, past)
    velocity = plain.denoise(x, sigma, past)

It is not released code of anyone. As such code often does, it computes again in each pass what the pass
before had computed: the mask over all frames so far, the RoPE tables of all of them, the embedding of the
noise level, the modulation of each block, repeated over the tokens. Keys and values of the past are copied in
front of the current ones in each layer. Weights and numbers are those of the network.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Bool, Float
from torch import Tensor

from framelens.models.dense import Dense
from framelens.models.parts.stack import CLEAN_TIMESTEP, Stack, patches
from framelens.models.scd import SCD

FUSIONS = ("token_concat", "channel_concat", "add")
"""Fusions of a separated network that the plain sampler has."""

KeysAndValues = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class PlainPast:
    """Finished frames: their number, keys and values of each layer, and a separated network's features."""

    frames: int
    layers: KeysAndValues
    features: Tensor | None = None


class PlainSampler:
    """The passes of a network without conditions or prompts, one after the other from its weights."""

    def __init__(self, network: Dense | SCD):
        self.network = network
        self.scd = network if isinstance(network, SCD) else None
        self.encoder: Stack = network.encoder if isinstance(network, SCD) else network
        self.decoder: Stack = network.decoder if isinstance(network, SCD) else network
        config = network.config
        if self.scd is not None and (self.scd.asks or self.scd.config.fusion not in FUSIONS):
            raise ValueError(f"the plain sampler has the fusions {', '.join(FUSIONS)}, and no queries")
        if config.conditions or config.text_tokens or config.window is not None:
            raise ValueError("the plain sampler has no conditions, no prompts and no window")

    def start(self, batch: int) -> PlainPast:
        """A past without frames; a separated network has read its start token."""
        past = PlainPast(0, [])
        if self.scd is None or self.scd.start_token is None:
            return past
        tokens = repeat(self.scd.start_token, "d -> b n d", b=batch, n=self.network.geometry.tokens_per_frame)
        return self._append(tokens, past)

    def encode(self, x: Float[Tensor, "b 1 c h w"], past: PlainPast) -> PlainPast:
        """The past with this finished frame."""
        return self._append(self.encoder.embed(patches(x, self.encoder.config.patch)), past)

    def _append(self, tokens: Tensor, past: PlainPast) -> PlainPast:
        frames, clean = [*range(past.frames + 1)], tokens.new_full((len(tokens), 1), CLEAN_TIMESTEP)
        emb = _embed_level(self.encoder, clean)
        tokens, layers = _run_blocks(self.encoder, tokens, emb, frames, past.layers)
        features = None if self.scd is None else _final_norm(self.encoder, tokens, emb)
        return replace(past, frames=past.frames + 1, layers=layers, features=features)

    def denoise(
        self, x: Float[Tensor, "b 1 c h w"], sigma: Float[Tensor, " b"], past: PlainPast
    ) -> Float[Tensor, "b 1 c h w"]:
        """The velocity of the current frame."""
        tokens = self.decoder.embed(patches(x, self.decoder.config.patch))
        emb, n = _embed_level(self.decoder, 1000 * sigma[:, None]), tokens.shape[1]
        if self.scd is None:
            frames = [*range(past.frames + 1)]
            tokens, _ = _run_blocks(self.decoder, tokens, emb, frames, past.layers)
        else:
            assert past.features is not None
            tokens = self.scd.join(tokens, past.features)
            seen = [0] * (tokens.shape[1] // n)
            tokens, _ = _run_blocks(self.decoder, tokens, emb, seen, [])
        g, out = self.network.geometry, self.decoder.unembed
        assert out is not None
        return rearrange(
            out(_final_norm(self.decoder, tokens[:, -n:], emb)),
            "b (f h w) (c p q) -> b f c (h p) (w q)",
            h=g.rows, w=g.cols, p=g.patch, q=g.patch,
        )  # fmt: skip


def _embed_level(stack: Stack, timestep: Float[Tensor, "b 1"]) -> Float[Tensor, "b 1 d"]:
    return F.silu(stack.time(timestep))


def _run_blocks(
    stack: Stack,
    x: Float[Tensor, "b n d"],
    emb: Float[Tensor, "b 1 d"],
    frames: list[int],
    past: KeysAndValues,
) -> tuple[Float[Tensor, "b n d"], KeysAndValues]:
    """The tokens after all blocks, and keys and values of all `frames`, given by place, past ones first."""
    n = x.shape[1]
    mask = _causal_mask(frames, stack.geometry.tokens_per_frame, x.device)[-n:]
    cos, sin = (table[-n:] for table in stack.rope(torch.tensor(frames, device=x.device)))
    sin = sin * torch.tensor([-1.0, 1.0], device=x.device).repeat(sin.shape[1] // 2)
    kept: KeysAndValues = []
    for layer, block in enumerate(stack.blocks):
        x = _run_block(block, x, emb, mask, (cos, sin), past[layer] if past else None, kept)
    return x, kept


def _run_block(
    block: Any,
    x: Float[Tensor, "b n d"],
    emb: Float[Tensor, "b 1 d"],
    mask: Bool[Tensor, "n keys"],
    rope: tuple[Tensor, Tensor],
    past: tuple[Tensor, Tensor] | None,
    kept: KeysAndValues,
) -> Float[Tensor, "b n d"]:
    attn, split = block.attn, "b n (h d) -> b n h d"
    shift, scale, gate = _modulation(block.norm1.linear(emb), x.shape[1])
    normed = F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift
    q, k, v = (rearrange(linear(normed), split, h=attn.heads) for linear in (attn.q, attn.k, attn.v))
    q, k = _rotate(attn.norm_q(q), *rope), _rotate(attn.norm_k(k), *rope)
    q, k, v = (rearrange(part, "b n h d -> b h n d") for part in (q, k, v))
    if past is not None:
        k, v = torch.cat([past[0], k], dim=2), torch.cat([past[1], v], dim=2)
    kept.append((k, v))
    z = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    x = x + gate * attn.o(rearrange(z, "b h n d -> b n (h d)"))
    shift, scale, gate = _modulation(block.norm2.linear(emb), x.shape[1])
    normed = F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift
    return x + gate * block.mlp[2](F.gelu(block.mlp[0](normed), approximate="tanh"))


def _modulation(
    values: Float[Tensor, "b 1 parts_d"], tokens: int, parts: int = 3
) -> list[Float[Tensor, "b n d"]]:
    return [part.repeat_interleave(tokens, dim=1) for part in values.chunk(parts, dim=-1)]


def _rotate(x: Float[Tensor, "b n h d"], cos: Float[Tensor, "n d"], sin: Float[Tensor, "n d"]) -> Tensor:
    real, imaginary = x.unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack([-imaginary, real], dim=-1).flatten(3)
    return x * cos[None, :, None] + turned * sin[None, :, None]


def _causal_mask(frames: list[int], tokens: int, device: torch.device) -> Bool[Tensor, "all all"]:
    frame = torch.tensor(frames, device=device).repeat_interleave(tokens)
    return frame[None] <= frame[:, None]


def _final_norm(stack: Stack, x: Float[Tensor, "b n d"], emb: Float[Tensor, "b 1 d"]) -> Tensor:
    assert stack.norm_out is not None
    scale, shift = (
        part.repeat_interleave(x.shape[1], dim=1) for part in stack.norm_out(emb).chunk(2, dim=-1)
    )
    return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift
