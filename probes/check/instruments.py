"""Checks of what instruments need: standard names, points that fire once a pass and change the output."""

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from framelens.hooks import SilentHookError, together
from framelens.hooks.attention import AttentionTap, Pattern
from framelens.hooks.attention_edit import AttentionEdit
from framelens.hooks.edit import Edit
from framelens.hooks.trace import Trace
from framelens.probes.check.checked_model import Check, CheckedModel, difference
from framelens.probes.chunk.layers import Layers
from framelens.records.progress import progress_bar

QUERIES = 32
"""Number of queries of a call whose pattern is read."""
DEEP = 16
"""Networks with more layers are edited in three of them, unless all are requested."""


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
    plain, again = checked.rollout(), checked.rollout()
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


def edits(checked: CheckedModel) -> Check:
    """An edit at each point, and of each attention's output, changes the velocity."""
    roles, model = _roles(checked), checked.model
    wanted = [name for name in roles if checked.all_layers or _is_chosen(name, roles)]
    plain = {role: _answer(checked, role) for role in sorted(set(roles.values()))}
    changes: dict[str, float] = {}
    for name in progress_bar(wanted, desc="edits", leave=False):
        if name in model.hook_dict:
            edit = Edit(model.hook_dict, {name: lambda at, name, value: _add_noise(value)})
        else:
            edit = AttentionEdit(
                model.attn_dict, {name: lambda at, name, call: _add_noise(call.out)}, roles=(roles[name],)
            )
        answer = _answer(checked, roles[name], edit)
        changes[name] = difference(answer, plain[roles[name]])
    silent = [name for name, change in changes.items() if not change > 0]
    least = min(changes, key=lambda name: changes[name], default=None)
    where = f"{len(wanted)} of {len(roles)} points"
    where += "" if len(wanted) == len(roles) else " (first, middle and last layer)"
    without = f"; without effect at {', '.join(silent[:4])}" + (" and more" if len(silent) > 4 else "")
    least_of = "" if least is None else f"; least by {changes[least]:.1e}, at {least}"
    return Check(
        "edits",
        "an edit at each point changes the velocity",
        where + (without if silent else least_of),
        bool(changes) and not silent,
        "continue with the value that the hook point returns: x = self.hook(x); a network whose last "
        "layer is zero, as before training, does not react to any edit",
    )


def skips(checked: CheckedModel) -> Check:
    """A layer replaced by its own output changes nothing; a layer that is left out changes something."""
    video, noisy, last = checked.clip(0), checked.clip(1), checked.chunks - 1
    context, layers = checked.remember(video, last, checked.cond()), Layers(checked.model)
    with layers.record() as (on_pass, kept):
        plain = checked.velocity(noisy, last, context, on_pass)
    given, skipped = [], []
    for layer in _some(range(len(layers)), checked.all_layers):
        for output, into in ((lambda x, at=layer: kept[at + 1], given), (lambda x: x, skipped)):
            with layers.replace_outputs({layer: output}) as on_pass:
                into.append(difference(checked.velocity(noisy, last, context, on_pass), plain))
    how = "their blocks not run" if layers.modules is not None else "run, and their output replaced"
    return Check(
        "skips",
        "a layer replaced by its output changes nothing, a layer left out does",
        f"replaced by {max(given):.1e}, passed over by {min(skipped):.1e}, in {len(given)} layers ({how})",
        max(given) == 0 and min(skipped) > 0,
        "the module blocks.{l} takes the residual stream first and returns it alone, hook_resid_pre and "
        "hook_resid_post at its ends; else offer other modules as block_dict",
    )


def _roles(checked: CheckedModel) -> dict[str, str]:
    """The kind of pass in which to edit each point: the first of denoise, ask, encode in which it fires."""
    seen: dict[str, set[str]] = {}

    def note(at: Any, name: str, _value: Any) -> None:
        seen.setdefault(name, set()).add(at.role)

    model = checked.model
    trace = Trace(model.hook_dict, checked.points, note)
    tap = AttentionTap(model.attn_dict, "*", note)
    try:
        with together(trace, tap) as both:
            checked.rollout(both.on_pass)
    except SilentHookError:
        pass  # `fires` reports this
    order = [*checked.points, *model.attn_dict]
    kinds = ("denoise", "ask", "encode")
    return {name: next(kind for kind in kinds if kind in seen[name]) for name in order if name in seen}


def _answer(checked: CheckedModel, role: str, edit: Any = None) -> Tensor:
    """The last chunk's velocity, with the edit in that pass or in the encoding of the chunk before it."""
    video, noisy, last = checked.clip(0), checked.clip(1), checked.chunks - 1
    context = checked.remember(video, last - 1, checked.cond())
    if role == "denoise":
        context = checked.encode_chunk(video, last - 1, context)
        return _under(edit, lambda on_pass: checked.velocity(noisy, last, context, on_pass))
    context = _under(edit, lambda on_pass: checked.encode_chunk(video, last - 1, context, on_pass))
    return checked.velocity(noisy, last, context)


def _under(edit: Any, run: Any) -> Any:
    if edit is None:
        return run(lambda at: None)
    kept = []
    try:
        with edit:
            kept.append(run(edit.on_pass))
    except SilentHookError:
        if not kept:
            raise
    return kept[0]


def _is_chosen(name: str, names: dict[str, str]) -> bool:
    """Whether the point is outside of layers, or in the first, middle or last layer of a deep stack."""
    place = re.match(r"(.*?blocks\.)(\d+)\.", name)
    if place is None:
        return True
    inside = (re.match(rf"{re.escape(place[1])}(\d+)\.", other) for other in names)
    return int(place[2]) in _some(sorted({int(match[1]) for match in inside if match}), False)


def _some(layers: Sequence[int], every: bool) -> Sequence[int]:
    """All layers. Of a deep network the first, middle and last, unless `every`."""
    if every or len(layers) <= DEEP:
        return layers
    return [layers[0], layers[len(layers) // 2], layers[-1]]


def _add_noise(value: Tensor) -> Tensor:
    """The value with noise as large as itself on each entry: norms and softmax undo simpler edits."""
    size = value.float().square().mean().sqrt().item() or 1.0
    generator = torch.Generator().manual_seed(0)
    return value + size * torch.randn(value.shape, generator=generator).to(value)


def _ignore(_at: Any, _name: str, _value: Any) -> None:
    pass
