"""Small networks that differ in one respect each, MODEL=tests/networks/variants.py:load. For tests only.

--set kind=NAME chooses one; SOUND keep the contract, BROKEN do not.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import carried
import tiny
import tiny_scd
import torch

from framelens.diffusion.source import Source
from framelens.hooks.attention import AttentionPoint
from framelens.models import adapter_template
from framelens.models.adapter_template import Adapter, Net

READ = ("hook_embed", "hook_attn_out", "hook_mlp_out")
"""Names of hook points that a model may leave out, although statistics read them."""
OTHERS = ("hook_resid_mid", *(f"hook_{name}" for name in ("q", "k", "v", "z", "rot_q", "rot_k", "pattern")))
"""Names of further ones."""
WAYS = ("token_concat", "prefix", *(way for way in tiny_scd.WAYS if way.endswith("asking")))
"""Of fusing and of asking."""


def adapted(kind: type[Adapter] = Adapter) -> Adapter:
    """The adapter template, of random weights, probed on its own samples."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = kind(Net())
    model.metadata = {}
    return model.eval().requires_grad_(False)


def without(*points: str) -> Any:
    """The dense network without the hook points of these names."""
    network = dense()
    kept = {name: point for name, point in network.hook_dict.items() if not name.endswith(points)}
    network.hook_dict = kept
    return network


class Doubled(Adapter):
    """Guidance inside: [without the actions, with them] as one batch."""

    stack = None  # pyright: ignore[reportAssignmentType, reportIncompatibleVariableOverride]

    def start(self, batch: int, cond: Any = None) -> Any:
        none = torch.full((batch, 64) if cond is None else cond.shape, adapter_template.ACTIONS)
        return super().start(2 * batch, torch.cat([none, none if cond is None else cond]))

    def encode(self, x: Any, context: Any) -> Any:
        return super().encode(torch.cat([x, x]), context)

    def denoise(self, x: Any, sigma: Any, context: Any) -> Any:
        both = super().denoise(torch.cat([x, x]), torch.cat([sigma, sigma]), context)
        away, towards = both.chunk(2)
        return away + 3 * (towards - away)


class Window(Adapter):
    """Its layers see different frames: layer 1 the last one only."""

    def enter(self, x: Any, sigma: Any, context: Any) -> Any:
        cache = list(context.cache)
        cache[1] = tuple(part[:, :, -adapter_template.TOKENS :] for part in cache[1])
        return super().enter(x, sigma, replace(context, cache=tuple(cache)))

    @property
    def attn_dict(self) -> dict[str, AttentionPoint]:
        points = dict(super().attn_dict)
        points["blocks.1.attn"] = AttentionPoint(self.blocks[1].attn, _age_in_window)
        return points


def _age_in_window(frame: int, keys: int) -> torch.Tensor:
    return torch.arange(min(frame, 1), -1, -1).repeat_interleave(adapter_template.TOKENS)


class NoPrediction(Adapter):
    """Predicts nothing that is a number."""

    def denoise(self, x: Any, sigma: Any, context: Any) -> Any:
        return super().denoise(x, sigma, context) / 0


class NoFrames(Adapter):
    """A velocity without the axis of frames."""

    def denoise(self, x: Any, sigma: Any, context: Any) -> Any:
        return super().denoise(x, sigma, context)[:, 0]


def dense(**changes: Any) -> Any:
    """The dense network, of random weights, probed on its own samples."""
    return _own_samples(tiny.model(**changes))


def idle(attention: Sequence[int], mlp: Sequence[int] = ()) -> Any:
    """The dense network, whose attention or MLP writes zeros in these layers."""
    network = dense(layers=3)
    parts = [network.blocks[layer].attn.o for layer in attention]
    parts += [network.blocks[layer].mlp[-1] for layer in mlp]
    for weight in (weight for part in parts for weight in part.parameters()):
        weight.zero_()
    return network


def separated(way: str) -> Any:
    """The separated network, with a fusion and a way of asking."""
    return _own_samples(tiny_scd.model(way))


def _own_samples(model: Any) -> Any:
    model.source = Source()
    return model


SOUND: dict[str, Callable[[], Any]] = {
    "whole": adapted,
    **{f"without {point}": partial(without, point) for point in READ},
    "only what is needed": partial(without, *READ, *OTHERS),
    "layers of different windows": partial(adapted, Window),
    "the past carried in the pass": partial(adapted, carried.Carried),
    "dense": dense,
    "an idle layer": partial(idle, [1], [1]),
    "a past that is ignored": partial(idle, [0, 1, 2]),
    "dense, actions, a window": partial(dense, conditions=3, window=1, sink=1),
    **{f"separated, {way}": partial(separated, way) for way in WAYS},
}
BROKEN: dict[str, Callable[[], Any]] = {
    "batch doubled inside": partial(adapted, Doubled),
    "without hook_resid_pre": partial(without, "hook_resid_pre"),
    "no prediction": partial(adapted, NoPrediction),
    "no frames": partial(adapted, NoFrames),
}


def load(kind: str = "whole") -> Any:
    """The network of that name."""
    return (SOUND | BROKEN)[kind]()
