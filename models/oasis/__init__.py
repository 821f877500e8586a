"""Oasis 500M (Decart and Etched 2024): Minecraft, frame by frame, with 25 key and mouse values per frame.

    model = models.load("Etched/oasis-500m/oasis500m.safetensors")
    model = models.load("oasis500m.safetensors", height=18, width=32, max_frames=32)      # see DEFAULTS

Each block of the released network is two layers here, since it has two residual halves: layer 2i attends
within the frame, layer 2i + 1 along the frames of each place. Details of its passes:

- A finished frame is read without noise, with noise level 14 of 1000 as its input (`stabilization` - 1).
- The released sampler gives the network `max_frames` frames, the new one included, and computes all of them
  at each step. While the first frame is in view, the keys of older frames do not change, so they are cached.
  When the window slides, `encode` computes the keys of all frames in view again. Results are equal.
- Noise is converted (models/oasis/noise.py). Level 999 keeps a share of 3e-7 of the signal: sigma above
  0.99945 gets level 999.
"""

import math
from collections.abc import Collection
from dataclasses import asdict
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from framelens.diffusion.contract import Geometry
from framelens.diffusion.layers import LayerInputs
from framelens.diffusion.schedule import Sampling
from framelens.hooks.attention import AttentionPoint
from framelens.models.loading.checkpoint import Checkpoint
from framelens.models.oasis.blocks import Frames, Half, OasisPast, along_turns, normalise, within_turns
from framelens.models.oasis.config import Config as Config
from framelens.models.oasis.noise import Conversion, level_of, log_odds_of, signal_shares
from framelens.models.oasis.read import MARKS, config_of, rename, shapes_of
from framelens.models.parts.blocks import GuardedHookPoint
from framelens.models.parts.cache import KVCache, KVStorage
from framelens.models.parts.current_tokens import Turns, hook_current
from framelens.models.parts.layered import Layered, RemembersByLayers

CLASSES: tuple[str, ...] = ()
DEFAULTS: dict[str, Any] = {"height": 18, "width": 32, "max_frames": 32, "stabilization": 15}
"""Height and width of latents; frames in view, the new one included; level of finished frames plus 1."""

SINUSOID = 256


def recognises(names: Collection[str]) -> bool:
    """Whether these are the tensor names of Oasis."""
    return set(MARKS) <= set(names)


def read(checkpoint: Checkpoint, options: dict[str, Any]) -> tuple["Oasis", dict[str, Any]]:
    """The network of an Oasis checkpoint, and its metadata; ValueError if sizes or tensors do not fit."""
    config = Config(**config_of(checkpoint, options))
    checkpoint.check(shapes_of(checkpoint, config))
    with torch.device("meta"):
        model = Oasis(config)
    model.load_state_dict(rename(checkpoint.weights, config), assign=True)
    model.log_odds = nn.Buffer(log_odds_of(signal_shares()), persistent=False)
    return model, {"network": "oasis", "config": model.describe(), "origin": "open-oasis"}


class Levels(NamedTuple):
    """What the layers are given of noise level and action [b t d], and how velocities are converted."""

    condition: Float[Tensor, "b t d"]
    conversion: Conversion | None = None
    """None in a pass over finished frames."""


class Oasis(RemembersByLayers, Layered, nn.Module):
    """The network as a CausalDiffuser on latents; cond is actions [b f 25], one per frame."""

    latent = True
    takes = "actions"
    sampling = Sampling(10)
    density = {"spread": 1.25}
    """Training density: spread of the log odds of sigma, for uniform levels from 0 to 999."""
    keeps_float32 = ("frequencies", "log_odds")

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        width, patch, head = config.d_model, config.patch, config.d_model // config.heads
        self.embed = nn.Conv2d(config.channels, width, kernel_size=patch, stride=patch)
        self.level = nn.Sequential(nn.Linear(SINUSOID, width), nn.SiLU(), nn.Linear(width, width))
        self.action = nn.Linear(config.actions, width)
        self.blocks = nn.ModuleList(
            Half(width, config.heads, config.mlp_width, bool(layer % 2)) for layer in range(config.layers)
        )
        self.modulation_out = nn.Linear(width, 2 * width)
        self.unembed = nn.Linear(width, patch**2 * config.channels)
        self.space_frequencies = nn.Buffer(torch.zeros(head // 4))
        self.time_frequencies = nn.Buffer(torch.zeros(head // 2))
        self.log_odds = nn.Buffer(log_odds_of(signal_shares()), persistent=False)
        self.hook_embed = GuardedHookPoint()

    @property
    def geometry(self) -> Geometry:
        """The shape of latents and of their token grid."""
        c = self.config
        return Geometry(1, c.channels, c.height, c.width, c.patch, c.layers, c.heads, c.d_model)

    @property
    def hook_dict(self) -> dict[str, nn.Module]:
        """The standard names of the hook points."""
        return {name: part for name, part in self.named_modules() if isinstance(part, GuardedHookPoint)}

    @property
    def attn_dict(self) -> dict[str, AttentionPoint]:
        """Attention: within the frame in even layers; along time, one row per place, in odd layers."""
        points = {}
        for layer in range(self.config.layers):
            age, fold = (_back, self.geometry.tokens_per_frame) if layer % 2 else (_own, 1)
            name = f"blocks.{layer}.attn"
            points[name] = AttentionPoint(self.get_submodule(name), age, fold=fold)
        return points

    @property
    def null_condition(self) -> Float[Tensor, " a"]:
        """An action [25] of zeros: no key and no movement."""
        return torch.zeros(self.config.actions, device=self.device)

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights."""
        return self.unembed.weight.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.unembed.weight.device

    def start(self, batch: int, cond: Tensor | None = None) -> OasisPast:
        """A context before the first frame; without cond all actions are the null condition."""
        c = self.config
        if cond is not None and (cond.ndim != 3 or (len(cond), cond.shape[2]) != (batch, c.actions)):
            expected = f"[{batch}, frames, {c.actions}]"
            raise ValueError(f"cond must be actions {expected}, got {tuple(cond.shape)}")
        nothing = torch.zeros(batch, 0, c.channels, c.height, c.width, device=self.device, dtype=self.dtype)
        actions = None if cond is None else cond.to(self.device, self.dtype)
        return OasisPast(0, self._nothing(), nothing, actions)

    def encode_by(self, x: Float[Tensor, "b 1 c h w"], context: OasisPast, layers: range | None) -> OasisPast:
        """The context with this finished frame's keys; all keys are new if a frame left the window.

        `layers` are those that run and remember; None for all. Hook points see only the finished frame.
        """
        window, seen = self.config.window, torch.cat([context.recent, x.to(context.recent)], dim=1)
        if seen.shape[1] <= window:
            cache, fresh = context.cache.for_appending(), seen[:, -1:]
        else:
            seen = seen[:, -window:]
            cache, fresh = self._nothing(), seen
        first = context.frame + 1 - fresh.shape[1]
        level = torch.full(fresh.shape[:2], self.config.stabilization - 1.0, device=self.device)
        entered = self._enter(fresh, Levels(self._condition(level, context.actions, first)), cache)
        self.through(*entered, layers)
        return OasisPast(context.frame + 1, cache.append(fresh.shape[1]), seen, context.actions)

    def enter(
        self, x: Float[Tensor, "b 1 c h w"], sigma: Float[Tensor, " b"], context: OasisPast
    ) -> LayerInputs:
        """The new frame's tokens, in the network's own noise, and what the layers are given beside."""
        level = level_of(sigma.to(self.device), self.log_odds)[:, None]
        condition = self._condition(level, context.actions, context.frame)
        conversion = Conversion.of(x.to(self.device), sigma)
        return self._enter(conversion.scaled, Levels(condition, conversion), context.cache)

    def describe(self) -> dict[str, Any]:
        """The configuration as plain values."""
        return asdict(self.config) | {"window": self.config.window}

    def _nothing(self) -> KVCache:
        return KVCache(KVStorage(self.config.layers // 2, least=self.config.max_frames))

    def _condition(
        self, level: Float[Tensor, "b t"], actions: Tensor | None, first: int
    ) -> Float[Tensor, "b t d"]:
        """The embedding of the noise level and the action of each frame."""
        frames = level.shape[1]
        # The order of operations matters: float32 rounding here changes an angle by up to 1e-4.
        powers = -math.log(10000) * torch.arange(SINUSOID // 2, device=level.device) / (SINUSOID // 2)
        angles = level.float()[..., None] * powers.exp()
        embedded = self.level(torch.cat([angles.cos(), angles.sin()], dim=-1).to(self.dtype))
        if actions is None:
            return embedded + self.action(self.null_condition.to(self.dtype))
        if first + frames > actions.shape[1]:
            raise ValueError(
                f"actions are given for {actions.shape[1]} frames; frame {first + frames - 1} has none"
            )
        return embedded + self.action(actions[:, first : first + frames])

    def _enter(self, x: Float[Tensor, "b t c h w"], levels: Levels, cache: KVCache) -> LayerInputs:
        g, count = self.geometry, x.shape[1]
        embedded = self.embed(rearrange(x.to(self.dtype), "b t c h w -> (b t) c h w"))
        tokens = rearrange(embedded, "(b t) d h w -> b (t h w) d", t=count)
        tokens = hook_current(self.hook_embed, tokens, g.tokens_per_frame)
        turns = (
            within_turns(self.space_frequencies, g.rows, g.cols, count),
            along_turns(self.time_frequencies, cache.tokens, count, g.tokens_per_frame),
        )
        return LayerInputs(tokens, levels, turns, Frames(g.tokens_per_frame, count, cache), None)

    def through(
        self,
        tokens: Float[Tensor, "b n d"],
        modulations: Levels,
        rope: tuple[Turns, Turns],
        history: Frames,
        text: None = None,
        layers: range | None = None,
    ) -> Float[Tensor, "b n d"]:
        """The residual stream after all layers, or those of `layers`."""
        for layer in range(len(self.blocks)) if layers is None else layers:
            inputs = (modulations.condition, rope[layer % 2], history, layer // 2)
            tokens = self.blocks[layer](tokens, *inputs)
        return tokens

    def velocity(self, tokens: Float[Tensor, "b n d"], modulations: Levels) -> Float[Tensor, "b f c h w"]:
        """The velocity as frames, from what the network gives of them in its own noise."""
        assert modulations.conversion is not None
        g = self.geometry
        shift, scale = self.modulation_out(F.silu(modulations.condition)).chunk(2, dim=-1)
        values = self.unembed(normalise(tokens) * (1 + scale) + shift)
        return modulations.conversion.velocity(
            rearrange(
                values, "b (f h w) (p q c) -> b f c (h p) (w q)", h=g.rows, w=g.cols, p=g.patch, q=g.patch
            )
        )


def _own(_frame: int, keys: int) -> Int[Tensor, " {keys}"]:
    return torch.zeros(keys, dtype=torch.long)


def _back(_frame: int, keys: int) -> Int[Tensor, " {keys}"]:
    return torch.arange(keys).flip(0)
