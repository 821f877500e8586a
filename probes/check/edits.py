"""Checks of edits: a value that is replaced changes the velocity, and layers can be passed over."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from framelens.hooks import SilentHookError, together
from framelens.hooks.attention import AttentionTap
from framelens.hooks.attention_edit import AttentionEdit
from framelens.hooks.edit import Edit
from framelens.hooks.trace import Trace
from framelens.probes.check.checked_model import Check, CheckedModel, difference
from framelens.probes.chunk.layers import Layers
from framelens.records.progress import progress_bar

DEEP = 16
"""Networks with more layers are edited in three of them, unless all are requested."""


def edits(checked: CheckedModel) -> Check:
    """An edit at each point, and of each attention's output, changes the velocity."""
    roles = _roles(checked)
    wanted = [name for name in roles if checked.all_layers or _is_chosen(name, roles)]
    plain = {role: _answer(checked, role) for role in sorted(set(roles.values()))}
    changes: dict[str, float] = {}
    for name in progress_bar(wanted, desc="edits", leave=False):
        answer = _answer(checked, roles[name], _noisy_edit(checked, name, roles[name]))
        changes[name] = difference(answer, plain[roles[name]])
    without_effect = [name for name, change in changes.items() if not change > 0]
    silent = [name for name in without_effect if not _is_idle(checked, name, roles[name], changes)]
    effective = {name: change for name, change in changes.items() if change > 0}
    least = min(effective, key=lambda name: effective[name], default=None)
    where = f"{len(wanted)} of {len(roles)} points"
    where += "" if len(wanted) == len(roles) else " (first, middle and last layer)"
    without = f"; without effect at {', '.join(silent[:4])}" + (" and more" if len(silent) > 4 else "")
    least_of = "" if least is None else f"; least by {effective[least]:.1e}, at {least}"
    idle = sorted({_layer_of(name) for name in without_effect if name not in silent})
    least_of += f"; what was edited in {', '.join(idle)} adds nothing to the velocity" if idle else ""
    return Check(
        "edits",
        "an edit at each point changes the velocity",
        where + (without if silent else least_of),
        bool(effective) and not silent,
        "continue with the value that the hook point returns: x = self.hook(x); a network whose last "
        "layer is zero, as before training, does not react to any edit",
    )


def skips(checked: CheckedModel) -> Check:
    """A layer replaced by its own output changes nothing; a layer that is left out changes something."""
    video, noisy, last = checked.clip(0), checked.clip(1), checked.chunks - 1
    context, layers = checked.remember(video, last, checked.cond()), Layers(checked.model)
    with layers.record() as (on_pass, kept):
        plain = checked.velocity(noisy, last, context, on_pass)

    def replace_by(layer: int, output: Callable[[Tensor], Tensor]) -> float:
        with layers.replace_outputs({layer: output}) as on_pass:
            return difference(checked.velocity(noisy, last, context, on_pass), plain)

    chosen = _some(range(len(layers)), checked.all_layers)
    given = [replace_by(layer, lambda x, at=layer: kept[at + 1]) for layer in chosen]
    skipped = {layer: replace_by(layer, lambda x: x) for layer in chosen}
    # Where noise instead of its output has an effect, the module is the layer, and the layer adds nothing.
    idle = [
        layer
        for layer, change in skipped.items()
        if change == 0 and replace_by(layer, lambda x, at=layer: _add_noise(kept[at + 1])) > 0
    ]
    least = min((change for layer, change in skipped.items() if layer not in idle), default=0.0)
    how = "their blocks not run" if layers.modules is not None else "run, and their output replaced"
    without = f"; {', '.join(layers.names[layer] for layer in idle)} without effect: idle" if idle else ""
    return Check(
        "skips",
        "a layer replaced by its output changes nothing, a layer left out does",
        f"replaced by {max(given):.1e}, passed over by {least:.1e}, in {len(given)} layers ({how}){without}",
        max(given) == 0 and (least > 0 or len(idle) == len(given)),
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


def _noisy_edit(checked: CheckedModel, name: str, role: str) -> Edit | AttentionEdit:
    """Noise on the value at that point, or on the output of that attention in passes of this role."""
    if name in checked.model.hook_dict:
        return Edit(checked.model.hook_dict, {name: lambda at, name, value: _add_noise(value)})
    edits = {name: lambda at, name, call: _add_noise(call.out)}
    return AttentionEdit(checked.model.attn_dict, edits, roles=(role,))


def _is_idle(checked: CheckedModel, name: str, role: str, changes: dict[str, float]) -> bool:
    """Whether the point is wired, although an edit at it has no effect: what it feeds adds nothing.

    So it is where an edit of the stream after the layer has an effect, and the layer, or its attention,
    writes zeros into the stream, or this edit changes the stream in channels that nothing reads.
    """
    layer, points = _layer_of(name), checked.model.hook_dict
    ends = [f"{layer}.{end}" for end in ("hook_resid_pre", "hook_attn_out", "hook_resid_post")]
    if not layer or name in ends or ends[0] not in points or not changes.get(ends[2], 0.0) > 0:
        return False
    kept: list[dict[str, Tensor]] = []
    for edit in (None, _noisy_edit(checked, name, role)):
        values: dict[str, Tensor] = {}
        names = [end for end in ends if end in points]
        trace = Trace(points, names, lambda _at, end, value, into=values: into.update({end: value.clone()}))
        _answer(checked, role, trace if edit is None else together(edit, trace))
        kept.append(values)
    plain, edited = kept
    pre, gathered, post = (plain.get(end) for end in ends)
    assert pre is not None and post is not None
    of_attention = name.startswith(f"{layer}.attn")
    adds_nothing = torch.equal(pre, post) or (of_attention and gathered is not None and not gathered.any())
    return adds_nothing or not torch.equal(edited[ends[2]], post)


def _layer_of(name: str) -> str:
    """`blocks.3` of `blocks.3.attn.hook_q`; empty outside of layers."""
    place = re.match(r"(.*?blocks\.\d+)\.", name)
    return "" if place is None else place[1]


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
