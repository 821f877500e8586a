"""The sizes a model declares are those that come: by them layers, heads and tokens are told apart."""

import re
from typing import Any

from framelens.hooks import SilentHookError, together
from framelens.hooks.attention_edit import AttentionCall, AttentionEdit
from framelens.hooks.trace import Trace
from framelens.probes.check.specimen import Check, Specimen
from framelens.probes.chunk.layers import Layers


def geometry(specimen: Specimen) -> Check:
    """The declared layers, heads, width and tokens are those that fire."""
    model, declared = specimen.model, specimen.model.geometry
    streams, heads = _seen(specimen)
    extra = {point.own_queries for point in model.attn_dict.values()} - {None}
    layers = {name.rsplit(".", 1)[0] for name in model.hook_dict if re.search(_POST, name)}
    tokens = sorted({n for n, _ in streams if n != declared.tokens_per_chunk})
    widths = sorted({width for _, width in streams if width != declared.d_model})
    others = sorted(heads - {declared.heads})
    faults = []
    if tokens and declared.tokens_per_chunk not in extra:
        faults.append(f"{declared.tokens_per_chunk} tokens a chunk where {_listed(tokens)} come")
    if widths:
        faults.append(f"d_model {declared.d_model} where {_listed(widths)} come")
    if others:
        faults.append(f"{declared.heads} heads where {_listed(others)} attend")
    if len(layers) != declared.layers:
        faults.append(f"{declared.layers} layers where {len(layers)} fire")
    found = (
        f"{declared.layers} layers of {declared.heads} heads, {declared.tokens_per_chunk} tokens a chunk of "
        f"width {declared.d_model}"
    )
    return Check(
        "geometry",
        "layers, heads, width and tokens are as many as the geometry says",
        "; ".join(faults) or found,
        not faults and bool(streams),
        "tokens a chunk are frames_per_chunk (height / patch) (width / patch); layers are those with "
        "blocks.{l}.hook_resid_post",
    )


_POST = r"blocks\.\d+\.hook_resid_post$"


def _seen(specimen: Specimen) -> tuple[set[tuple[int, int]], set[int]]:
    """Tokens and width of the residual streams, and the heads of attention, of denoising passes."""
    model = specimen.model
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
            specimen.walk(specimen.clip(0), specimen.clip(1), specimen.cond(), both.on_pass)
    except SilentHookError:
        pass  # which `fires` tells
    return streams, heads


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))
