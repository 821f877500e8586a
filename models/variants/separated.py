"""Any network that offers its layers, separated: an encoder once per frame, a decoder at every step.

    model = separate(framelens.load("dense-tiles"), Plan.read(path))            # a plan's layers
    model = separate(wan, encoder=range(25), head=range(5), tail=range(25, 30)) # the paper's split of Wan
    video = rollout(model, noise, sigmas, cond)

The encoder reads the finished frames, then asks for the next one with noise in its place. What its layers
after the head add to the residual stream are the features; the decoder adds them after its head, and its tail
runs on (the residual fusion; Bai et al. 2026, section 6.2). The decoder sees no other frame. Before a
fine-tune it is the network whose past is fetched once, by queries of another noise.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from framelens.diffusion.contract import CausalDiffuser, Context, Geometry, Traits, traits
from framelens.diffusion.sampler import prepare_steps
from framelens.diffusion.source import Source
from framelens.hooks.attention import AttentionPoint
from framelens.models import scd
from framelens.models.dense import Dense
from framelens.models.parts.asking import disturb, query_noise
from framelens.models.parts.cache import Cached, KVCache
from framelens.models.parts.layered import UniformLayers
from framelens.models.parts.scd_config import ASKING
from framelens.models.variants.fetch_once import layers_with_past
from framelens.models.variants.recomposed import recompose
from framelens.models.variants.two_parts import TwoParts
from framelens.records.plan import Plan

HANDED_ON = (
    "takes",
    "null_condition",
    "latent",
    "sampling",
    "density",
    "device",
    "keeps_float32",
    "no_split",
)
"""Traits that a separated network has of the one it was made from."""


def separate(
    network: CausalDiffuser,
    plan: Plan | None = None,
    *,
    encoder: Sequence[int] = (),
    head: Sequence[int] = (),
    tail: Sequence[int] = (),
    fusion: str = "residual",
    share: bool = False,
) -> CausalDiffuser:
    """The network separated as planned, or into these layers of encoder and decoder (head, then tail).

    A framelens dense network becomes an SCD of any fusion, which is trained and saved as such; other networks
    have the residual fusion. Weights are copied; with `share`, encoder and decoder hold the network's own.
    ValueError for layers that do not fit and for networks whose layers cannot be left out.

    >>> import framelens
    >>> model = framelens.separate(framelens.load("dense-tiles"), encoder=range(6), tail=range(6, 12))
    >>> model.config.encoder_layers, model.config.decoder_layers
    (6, 6)
    """
    if plan is not None and (encoder or head or tail):
        raise ValueError("give a plan, or the layers of encoder, head and tail, not both")
    if plan is not None:
        encoder, head, tail = _layers_of_plan(network, plan)
    own = traits(network)
    if not isinstance(network, UniformLayers) or own.stack is None:
        raise ValueError(f"a {type(network).__name__} cannot be separated: layers cannot be left out of it")
    _check_layers(network.geometry.layers, list(encoder), list(head), list(tail))
    if isinstance(network, Dense) and not share:
        return _as_scd(network, len(encoder), len(head), len(tail), fusion)
    if fusion != "residual":
        raise ValueError(
            f"a {type(network).__name__} is separated with fusion residual, got {fusion}; a framelens dense "
            "network whose weights are copied takes any"
        )
    first, last = (network.with_layers(list(layers), share) for layers in (encoder, [*head, *tail]))
    geometry = replace(network.geometry, layers=len(encoder) + len(head) + len(tail))
    return SeparatedNetwork(first, last, len(head), geometry)


def _layers_of_plan(network: CausalDiffuser, plan: Plan) -> tuple[range, tuple[int, ...], tuple[int, ...]]:
    encoder = layers_with_past(network, plan)
    assert plan.split is not None  # layers_with_past refuses such a plan
    return range(encoder), plan.split.head, plan.split.tail


def _check_layers(depth: int, encoder: list[int], head: list[int], tail: list[int]) -> None:
    """ValueError unless the encoder has the first layers, the head fewer of them, the tail the last ones."""
    fits = encoder == [*range(len(encoder))] and head == [*range(len(head))] and len(head) < len(encoder)
    fits = fits and tail == [*range(depth - len(tail), depth)] and len(encoder) <= depth
    if not fits or not head + tail:
        raise ValueError(
            f"of {depth} layers the encoder takes the first, the head fewer first ones, the tail the last; "
            f"got encoder {encoder}, head {head}, tail {tail}"
        )


def _as_scd(network: Dense, encoder: int, head: int, tail: int, fusion: str) -> scd.SCD:
    """The network's layers as an SCD, whose metadata names the weights from which it was made."""
    shared = {name: value for name, value in network.config.values().items() if name != "layers"}
    layers = {"encoder_layers": encoder, "decoder_layers": head + tail, "head": head}
    with torch.random.fork_rng(devices=[]):  # the weights of a fusion's own are the same each time
        torch.manual_seed(0)
        model = scd.build(shared | layers | ASKING | {"fusion": fusion})
    recompose(model, network)
    model.to(network.device, network.dtype).train(network.training)
    theirs = network.source
    about = theirs.metadata | {"network": "scd", "separated_from": theirs.sha256}
    model.latent, model.source = network.latent, Source(theirs.file, metadata=about)
    if traits(network).sampling is not None:
        model.sampling = traits(network).sampling  # pyright: ignore[reportAttributeAccessIssue]
    return model.requires_grad_(next(network.parameters()).requires_grad)


@dataclass(frozen=True)
class SeparatedContext:
    """The encoder's memory of finished frames, its features for the next one, the prompt of the decoder."""

    memory: Context
    text: Any
    features: Tensor | None = None
    step: Context = None
    """The context of the current denoising step, if the sampler prepared its steps."""

    @property
    def frame(self) -> int:
        """The number of the next frame."""
        return self.memory.frame


class SeparatedNetwork(nn.Module):
    """Two halves of a network; satisfies the contract of a CausalDiffuser. See `separate`."""

    denoising_stack = "decoder."
    asks = start_is_pass = True

    def __init__(self, encoder: Any, decoder: Any, head: int, geometry: Geometry):
        super().__init__()
        self.encoder, self.decoder, self.head, self.geometry = encoder, decoder, head, geometry

    @property
    def handed_on(self) -> dict[str, Any]:
        """The traits of the network that are this one's, too."""
        own: Traits = traits(self.encoder)
        return {name: getattr(own, name) for name in HANDED_ON}

    @property
    def hook_dict(self) -> dict[str, nn.Module]:
        """The hook points of both halves, called `encoder.` and `decoder.`"""
        halves = (("encoder", self.encoder), ("decoder", self.decoder))
        return {f"{half}.{name}": point for half, own in halves for name, point in own.hook_dict.items()}

    @property
    def attn_dict(self) -> dict[str, AttentionPoint]:
        """Self-attention of both halves; the decoder's keys are of the current chunk."""
        points = {f"encoder.{name}": point for name, point in self.encoder.attn_dict.items()}
        for name, point in self.decoder.attn_dict.items():
            points[f"decoder.{name}"] = replace(point, key_age=_age_of_own_keys(point))
        return points

    def start(self, batch: int, cond: Tensor | None = None) -> SeparatedContext:
        """A context in which nothing has been seen: the encoder has run over noise for the first chunk."""
        if cond is not None and traits(self.encoder).takes == "actions":
            # After the last chunk, where nothing is generated, the encoder asks with the last action.
            cond = torch.cat([cond, *[cond[:, -1:]] * self.geometry.frames_per_chunk], dim=1)
        context = SeparatedContext(self.encoder.start(batch, cond), self.decoder.start(batch, cond).text)
        return self.ask(context, batch)

    def encode(self, x: Tensor, context: SeparatedContext) -> SeparatedContext:
        """The context after this finished chunk, with features for the next one."""
        return self.ask(self.read(x, context), len(x))

    def read(self, x: Tensor, context: SeparatedContext) -> SeparatedContext:
        """The context with this finished chunk in the encoder's memory, not yet asked."""
        return replace(context, memory=self.encoder.encode(x, context.memory), features=None, step=None)

    def ask(self, context: SeparatedContext, batch: int) -> SeparatedContext:
        """The context with features for its chunk, from a pass of the encoder over noise."""
        query = self.query_noise(context.frame).expand(batch, -1, -1, -1, -1)
        sigma = torch.ones(batch, device=query.device)
        entered = self.encoder.enter(query, sigma, context.memory)
        entering = self.encoder.through(*entered, range(self.head))
        depth = len(self.encoder.blocks)
        after = self.encoder.through(*entered._replace(tokens=entering), range(self.head, depth))
        return replace(context, features=after - entering)

    def query_noise(self, frame: int) -> Tensor:
        """The noise [f c h w] with which the encoder asks for the chunk at that frame; the same for all."""
        return query_noise(self.geometry, frame).to(next(self.encoder.parameters()).device)

    def disturbed(
        self, context: SeparatedContext, strength: float, generator: torch.Generator
    ) -> SeparatedContext:
        """The context with noise of that strength on its features (equation 7)."""
        assert context.features is not None
        return replace(context, features=disturb(context.features, strength, generator))

    def at_steps(self, sigmas: Tensor, context: SeparatedContext) -> Iterator[SeparatedContext]:
        """The context at each step of a sampler, as the decoder prepares it."""
        steps = prepare_steps(traits(self.decoder), sigmas, context.memory)
        return (replace(context, step=step) for step in steps)

    def denoise(self, x: Tensor, sigma: Tensor, context: SeparatedContext) -> Tensor:
        """The velocity of the current chunk at noise level sigma [b]: the decoder alone."""
        step = context.memory if context.step is None else context.step
        entered = self.decoder.enter(x, sigma, step)
        entered = entered._replace(history=_without_past(entered.history), text=context.text)
        tokens = self.decoder.through(*entered, range(self.head)) + context.features
        depth = len(self.decoder.blocks)
        tokens = self.decoder.through(*entered._replace(tokens=tokens), range(self.head, depth))
        return self.decoder.velocity(tokens, entered.modulations)

    forward = denoise


def _without_past(history: Any) -> Any:
    """The same history in which the current chunk sees itself and tokens of no frame only."""

    def attend_alone(cache: KVCache, _: int, registers: int) -> TwoParts:
        return TwoParts(cache, 0, registers, "softmax", "whole", {})

    return history.replace_attention(attend_alone, 0) if isinstance(history, Cached) else history


def _age_of_own_keys(point: AttentionPoint) -> Any:
    """key_age of attention that sees the chunk's own keys and those of no frame."""

    def key_age(frame: int, keys: int) -> Tensor:
        ages = point.key_age(0, keys)
        return ages.clamp(max=0)

    return key_age
