"""Checks of what instruments need: standard names, points that fire once a pass and change the output."""

from typing import Any

import torch
from torch import Tensor

from framelens.hooks import SilentHookError, together
from framelens.hooks.attention import AttentionTap, Pattern
from framelens.hooks.trace import Trace
from framelens.probes.check.checked_model import Check, CheckedModel, difference
from framelens.probes.chunk.layers import Layers

QUERIES = 32
"""Number of queries of a call whose pattern is read."""


def names(checked: CheckedModel) -> Check:
    """Layers have the names by which experiments identify them."""
    model, points = checked.model, checked.model.hook_dict
    layers = Layers(model).names
    missing = [f"{layer}.hook_resid_pre" for layer in layers if f"{layer}.hook_resid_pre" not in points]
    unseen = [layer for layer in layers if f"{layer}.attn" not in model.attn_dict]
    found = f"{len(layers)} layers denoise, {len(points)} hook points, {len(model.attn_dict)} of attention"
    if missing or unseen:
        lacking = [*missing, *(f"attention at {layer}.attn" for layer in unseen)]
        found += f"; without {', '.join(lacking[:4])}" + (" and more" if len(lacking) > 4 else "")
    return Check(
        "names",
        "layers have hook_resid_pre, hook_resid_post and attn under their standard names",
        found,
        not missing and not unseen,
        "name the points blocks.{l}.hook_resid_pre, .hook_resid_post, and attention blocks.{l}.attn",
    )


def fires(checked: CheckedModel) -> Check:
    """Every point fires once in each announced pass of its kinds."""
    model, passes, faults = checked.model, [], []
    for instrument in (
        Trace(model.hook_dict, checked.points, _ignore),
        AttentionTap(model.attn_dict, "*", _ignore),
    ):
        passes.clear()

        def on_pass(at: Any, instrument: Any = instrument) -> None:
            passes.append(at)
            instrument.on_pass(at)

        try:
            with instrument:
                checked.rollout(on_pass)
        except SilentHookError as fault:
            faults.append(str(fault).split(", expected once")[0])
    points, modules = len(checked.points), len(model.attn_dict)
    found = f"{points} points and {modules} attention modules in {len(passes)} passes"
    return Check(
        "fires",
        "each point fires once per announced pass",
        "; ".join(faults) or found,
        not faults,
        "call each hook point, and in each attention module F.scaled_dot_product_attention by that name, "
        "once in each pass; list no point that is never called",
    )


def outputs(checked: CheckedModel) -> Check:
    """Attached instruments change no bit of the output."""
    # Passes are announced without instruments, too: where none is, a model that asks may encode in one pass.
    plain, again = (checked.rollout(lambda at: None) for _ in range(2))
    seen = _roll_out_watched(checked)
    own, found = difference(again, plain), difference(seen, plain)
    is_equal = torch.equal(seen, plain)
    noise = "" if torch.equal(again, plain) else f", without instruments by {own:.1e}: not deterministic"
    return Check(
        "outputs",
        "the output is the same bit for bit with Trace and AttentionTap attached",
        f"{checked.steps} steps of {checked.chunks} chunks differ by {found:.1e}{noise}",
        is_equal,
        "no branch may depend on attached hooks, no value may be changed in place after a hook point, and a "
        "pass may draw no random numbers",
    )


def _roll_out_watched(checked: CheckedModel) -> Tensor:
    model, video = checked.model, []

    def look(_at: Any, _name: str, pattern: Pattern) -> None:
        pattern.subsample(QUERIES, seed=0).statistics()

    trace = Trace(model.hook_dict, checked.points, _ignore)
    tap = AttentionTap(model.attn_dict, "*", look)
    try:
        with together(trace, tap) as both:
            video.append(checked.rollout(both.on_pass))
    except SilentHookError:  # `fires` reports this; a refusal to attach leaves no video
        if not video:
            raise
    return video[0]


def _ignore(_at: Any, _name: str, _value: Any) -> None:
    pass
