"""A network that reads the past once per frame, without training: its first step fetches, later ones reuse.

    model = fetch_once(framelens.load("dense-tiles"))       # every layer, at the first step of a frame
    model = fetch_once(dense, cut=6)                        # layers from 6 on never see the past
    model = fetch_once(dense, Plan.read(path), refresh=5)   # the plan's layers, again at every 5th step
    video = rollout(model, noise, sigma_grid(20), cond)

In each layer before the cut, attention has two parts: over the past's keys, and over those of the frame
itself. The first step computes both and keeps the past's: its output and log-normaliser for each query. Later
steps compute the frame's own part and merge the two, by their log-normalisers as one softmax would
("softmax"), or by adding what the past changed at the first step ("sum"). No map of probabilities is made.

What is kept belongs to the contexts that one call of `at_steps` makes, as every sampler here does for each
frame and branch: run them in order. `denoise` in any other context is a first step. Per frame and layer the
memory is one output and one number per query.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import Tensor

from framelens.diffusion.around import Around
from framelens.diffusion.contract import CausalDiffuser, Context, Traits, traits
from framelens.diffusion.layers import LayerStack
from framelens.diffusion.sampler import prepare_steps
from framelens.models.parts.cache import Cached, KVCache
from framelens.models.parts.history import AllTokens
from framelens.models.parts.layered import RemembersByLayers
from framelens.models.parts.two_parts import MERGES, Kept, Role, TwoParts
from framelens.models.variants.no_points import NoPoints
from framelens.records.plan import Plan


def fetch_once(
    model: CausalDiffuser,
    cut: int | Plan | None = None,
    *,
    merge: str = "softmax",
    refresh: int | None = None,
    refresh_from: float | None = None,
) -> "FetchOnce":
    """The model with the past fetched at the first step of each frame; layers from `cut` on never see it.

    A plan gives its cut; None is every layer. `refresh` fetches again at every such step (2: every other
    one); `refresh_from` is a noise level: all steps at or below it fetch. ValueError for a network that
    does not offer its layers (`stack`), for a separated one, and for a plan of another network.

    >>> import framelens
    >>> import torch
    >>> from framelens.diffusion.schedule import sigma_grid
    >>> model = framelens.fetch_once(framelens.load("dense-tiles"), 6)
    >>> actions = torch.zeros(1, 2, dtype=torch.long)
    >>> framelens.rollout(model, torch.randn(1, 2, 3, 20, 20), sigma_grid(4), actions).shape
    torch.Size([1, 2, 3, 20, 20])
    """
    declared, name = traits(model), type(model).__name__
    if declared.denoising_stack:
        raise ValueError(
            f"a {name} is separated: its steps do not read the past, so there is nothing to fetch once"
        )
    if declared.stack is None:
        raise ValueError(f"fetch_once needs a network that offers its layers as `stack`; a {name} does not")
    if merge not in MERGES:
        raise ValueError(f"no merge is called {merge!r}; there are {', '.join(MERGES)}")
    if refresh is not None and refresh < 1:
        raise ValueError(
            f"refresh must be at least 1 step, got {refresh}; None fetches at the first step alone"
        )
    if refresh_from is not None and not 0 <= refresh_from <= 1:
        raise ValueError(f"refresh_from is a noise level from 0 to 1, got {refresh_from}")
    return FetchOnce(model, layers_with_past(model, cut), merge, refresh, refresh_from)


def layers_with_past(model: CausalDiffuser, cut: int | Plan | None) -> int:
    """The number of first layers that see the past; ValueError if it does not fit the network."""
    depth = model.geometry.layers
    if isinstance(cut, Plan):
        return _cut_of_plan(model, cut)
    if cut is not None and not 0 <= cut <= depth:
        raise ValueError(f"the cut must be 0 to {depth}, the number of layers that see the past, got {cut}")
    return depth if cut is None else cut


def _cut_of_plan(model: CausalDiffuser, plan: Plan) -> int:
    g, planned = model.geometry, plan.model
    ours = (g.layers, g.tokens_per_frame, g.frames_per_chunk)
    theirs = (planned.layers, planned.tokens_per_frame, planned.frames_per_chunk)
    if ours != theirs:
        raise ValueError(
            f"the plan is of {planned.name}, with {theirs[0]} layers, {theirs[1]} tokens per frame and "
            f"{theirs[2]} frames per chunk; this network has {ours[0]}, {ours[1]} and {ours[2]}"
        )
    if plan.split is None:
        raise ValueError(f"the plan has no split: {planned.name} is {plan.verdict}; give a cut")
    return plan.split.encoder_layers


@dataclass(frozen=True)
class FetchStep:
    """The context of one step: that of the network, and what an earlier step of the frame kept."""

    context: Context
    role: Role
    kept: Kept = field(default_factory=dict, repr=False)
    """Shared by the steps of one frame; a step that fetches replaces it."""


class FetchOnce(Around):
    """The network with the past fetched once per frame; see `fetch_once`."""

    def __init__(
        self, model: CausalDiffuser, cut: int, merge: str, refresh: int | None, refresh_from: float | None
    ):
        self.model, self.cut, self.merge = model, cut, merge
        self.refresh, self.refresh_from = refresh, refresh_from

    @cached_property
    def declared(self) -> Traits:
        """The traits of the network."""
        return traits(self.model)

    @property
    def attn_dict(self) -> NoPoints:
        return NoPoints(
            "attention that reuses a past fetched before is not one softmax over keys: instrument the network"
        )

    def encode(self, x: Tensor, context: Context) -> Context:
        """The context with these finished frames, in the memory of the layers before the cut alone.

        It is for this model: the network would miss what its other layers have not remembered. A network of
        framelens does not run them.
        """
        own = context.context if isinstance(context, FetchStep) else context
        model = self.model
        if isinstance(model, RemembersByLayers) and type(model).encode is RemembersByLayers.encode:
            return model.encode_by(x, own, range(self.cut))
        return model.encode(x, own)

    def at_steps(self, sigmas: Tensor, context: Context) -> Iterator[FetchStep]:
        """The context at each step of one frame, in the order in which they must run."""
        fresh, kept = self.reads_past(sigmas), {}
        for step, own in enumerate(prepare_steps(self.declared, sigmas, context)):
            is_reused = step + 1 < len(fresh) and not fresh[step + 1]
            yield FetchStep(own, ("fetch" if is_reused else "whole") if fresh[step] else "reuse", kept)

    def reads_past(self, sigmas: Tensor) -> list[bool]:
        """Whether each step of a frame reads the past."""
        every, below = self.refresh, self.refresh_from
        # Noise levels are read only where they decide, since reading them waits for a GPU.
        is_low = [False] * len(sigmas) if below is None else [sigma <= below for sigma in sigmas.tolist()]
        return [
            step == 0 or (every is not None and step % every == 0) or low for step, low in enumerate(is_low)
        ]

    def denoise(self, x: Tensor, sigma: Tensor, context: Context) -> Tensor:
        """The velocity of the current chunk; a step that no `at_steps` made reads the past."""
        step = context if isinstance(context, FetchStep) else FetchStep(context, "whole")
        stack: LayerStack | None = self.declared.stack
        assert stack is not None  # `fetch_once` refuses such a network
        entered = stack.enter(x, sigma, step.context)
        history = self._history(entered.history, step)
        tokens = stack.through(*entered._replace(history=history), range(self.model.geometry.layers))
        return stack.velocity(tokens, entered.modulations)

    def _history(self, history: Any, step: FetchStep) -> Any:
        """The history through which this step attends."""
        if isinstance(history, AllTokens) or (
            step.role == "whole" and self.cut == self.model.geometry.layers
        ):
            return history
        if not isinstance(history, Cached):
            raise ValueError(
                f"fetch_once needs layers that attend through a KVCache (models/parts/cache.py); those of a "
                f"{type(self.model).__name__} attend through a {type(history).__name__}"
            )
        if step.role == "fetch":
            step.kept.clear()

        def attend_in_parts(cache: KVCache, cut: int, registers: int) -> TwoParts:
            return TwoParts(cache, cut, registers, self.merge, step.role, step.kept)

        return history.replace_attention(attend_in_parts, self.cut)
