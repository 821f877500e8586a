"""Check of the declared sizes, by which layers, heads and tokens are identified."""

import re
from typing import Any

from framelens.hooks import SilentHookError, together
from framelens.hooks.attention_edit import AttentionCall, AttentionEdit
from framelens.hooks.trace import Trace
from framelens.probes.check.checked_model import Check, CheckedModel
from framelens.probes.chunk.layers import Layers


def geometry(checked: CheckedModel) -> Check:
    """The declared layers, heads, width and tokens equal those of real passes."""
    model, declared = checked.model, checked.model.geometry
    streams, heads = _observe(checked)
    extra = {point.own_queries for point in model.attn_dict.values()} - {None}
    layers = {name.rsplit(".", 1)[0] for name in model.hook_dict if re.search(_POST, name)}
    tokens = sorted({n for n, _ in streams if n != declared.tokens_per_chunk})
    widths = sorted({width for _, width in streams if width != declared.d_model})
    others = sorted(heads - {declared.heads})
    faults = []
    if tokens and declared.tokens_per_chunk not in extra:
        faults.append(f"{declared.tokens_per_chunk} tokens a chunk but passes have {_join(tokens)}")
    if widths:
        faults.append(f"d_model {declared.d_model} but passes have {_join(widths)}")
    if others:
        faults.append(f"{declared.heads} heads but passes have {_join(others)}")
    if len(layers) != declared.layers:
        faults.append(f"{declared.layers} layers but {len(layers)} fire")
    found = (
        f"{declared.layers} layers of {declared.heads} heads, {declared.tokens_per_chunk} tokens a chunk of "
        f"width {declared.d_model}"
    )
    return Check(
        "geometry",
        "layers, heads, width and tokens equal the declared geometry",
        "; ".join(faults) or found,
        not faults and bool(streams),
        "tokens a chunk are frames_per_chunk (height / patch) (width / patch); layers are those with "
        "blocks.{l}.hook_resid_post",
    )


_POST = r"blocks\.\d+\.hook_resid_post$"


def _observe(checked: CheckedModel) -> tuple[set[tuple[int, int]], set[int]]:
    """Tokens and width of the residual streams, and the heads of attention, of denoising passes."""
    model = checked.model
    streams: set[tuple[int, int]] = set()
    heads: set[int] = set()

    def note(at: Any, name: str, value: Any) -> None:
        if at.role == "denoise":
            streams.add((value.shape[1], value.shape[-1]))

    def attend(at: Any, name: str, call: AttentionCall) -> Any:
        heads.add(call.q.shape[1])
        return call.out

    trace = Trace(model.hook_dict, [f"{layer}.hook_resid_post" for layer in Layers(model).names], note)
    edit = AttentionEdit(model.attn_dict, {"*": attend}, roles=("denoise",))
    try:
        with together(trace, edit) as both:
            checked.walk(checked.clip(0), checked.clip(1), checked.cond(), both.on_pass)
    except SilentHookError:
        pass  # `fires` reports this
    return streams, heads


def count_rows(checked: CheckedModel) -> dict[str, int]:
    """The hook points and attention modules that have another number of rows than 1 for one clip, and it."""
    model, rows = checked.model, {}

    def note(_at: Any, name: str, value: Any) -> None:
        rows[name] = value.shape[0]

    def attend(at: Any, name: str, call: AttentionCall) -> Any:
        note(at, name, call.out)
        return call.out

    trace, edit = Trace(model.hook_dict, checked.points, note), AttentionEdit(model.attn_dict, {"*": attend})
    try:
        with together(trace, edit) as both:
            checked.walk(checked.clip(0), checked.clip(1), checked.cond(), both.on_pass)
    except SilentHookError:
        pass  # `fires` reports this
    return {name: count for name, count in rows.items() if count != 1}


def _join(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))
