"""What is said of attention is so: patterns give the kernel's output, keys are as old as they are said."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from framelens.hooks import SilentHookError
from framelens.hooks.attention import Pattern
from framelens.hooks.attention_edit import AttentionCall, AttentionEdit
from framelens.probes.check.specimen import ROUND_OFF, Check, Specimen, changed, difference

QUERIES = 32
"""Queries of a call whose pattern is looked at."""
Prints = dict[tuple[str, str], tuple[list[int], Tensor]]
"""By kind of pass and module: the age of each key, and one number that tells whether the key changed."""


def patterns(specimen: Specimen) -> Check:
    """What AttentionTap shows is what the kernel computed."""
    errors: dict[str, list[float]] = {"output": [], "sum": [], "future": []}
    tolerances = []

    def look(at: Any, _name: str, call: AttentionCall) -> Tensor:
        pattern, out = _some_queries(call)
        ages = pattern.key_age
        assert ages is not None
        strange = int((ages < -1).sum() + (ages > max(at.frame, 0)).sum())
        errors["future"].append(strange)
        if strange:
            return call.out
        mass = pattern.statistics()[0].sum(-1)
        beyond = pattern.rows(0, pattern.queries)[..., (ages < 0).to(pattern.k.device)].sum(-1)
        errors["output"].append(difference(pattern.expect(call.v), out))
        errors["sum"].append((mass + beyond - 1).abs().max().item())
        tolerances.append(ROUND_OFF.get(out.dtype, 1e-5))
        return call.out

    edit = AttentionEdit(specimen.model.attn_dict, {"*": look}, roles=("denoise", "encode", "ask"))
    try:
        with edit:
            specimen.walk(specimen.clip(0), specimen.clip(1), specimen.cond(), edit.on_pass)
    except SilentHookError:
        pass  # which `fires` tells
    largest = {name: max(values, default=0.0) for name, values in errors.items()}
    allowed = max(tolerances, default=0.0)
    is_right = largest["output"] <= allowed and largest["sum"] <= 1e-4 and bool(errors["output"])
    return Check(
        "patterns",
        "patterns sum to one, look at no frame yet to come, and give the kernel's output",
        f"{len(errors['future'])} calls: sums off by {largest['sum']:.1e}, {largest['future']:.0f} keys "
        f"of no frame so far, output off by {largest['output']:.1e} (allowed {allowed:.0e})",
        is_right and not largest["future"],
        "key_age must be 0 at hand, 1, 2, ... frames back and -1 for what is no frame; the kernel must be "
        "given softmax(scale q k^T) v as it is, without mask or dropout",
    )


def _some_queries(call: AttentionCall) -> tuple[Pattern, Tensor]:
    """The pattern of some queries of a call, and its output for them."""
    if call.fold > 1:
        return Pattern(call.q, call.k, call.scale, call.key_age, fold=call.fold), call.out
    count = call.q.shape[2]
    chosen = torch.linspace(0, count - 1, min(count, QUERIES), device=call.q.device).round().long()
    q, out = (part.index_select(2, chosen) for part in (call.q, call.out))
    return Pattern(q, call.k, call.scale, call.key_age), out


def key_age(specimen: Specimen) -> Check:
    """Keys are of the frames that key_age says: of no frame before one that changed did a key change.

    A frame is replaced, and the keys and values of each attention module are compared with those of before,
    in the last chunk's passes. Keys of that frame have changed; later ones may have, through deeper layers;
    earlier ones cannot.
    """
    last = specimen.chunks - 1
    before, faults, compared = _prints(specimen, specimen.clip(0), specimen.clip(1)), [], 0
    for frame in range((last + 1) * specimen.chunk):
        span = slice(frame, frame + 1)
        clips = (changed(specimen.clip(seed), span, specimen.clip(seed + 2)) for seed in (0, 1))
        after = _prints(specimen, *clips)
        for key, (ages, values) in before.items():
            moved = (after[key][1] != values).tolist()
            compared += len(moved)
            faults += [f"{key[1]} ({key[0]}): {fault}" for fault in _faults(specimen, frame, ages, moved)]
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return Check(
        "key_age",
        "keys change with the frames that they are said to be of, and not with later ones",
        f"{faults[0]}{more}" if faults else f"{compared} keys compared under changes of {frame + 1} frames",
        not faults and compared > 0,
        "key_age(frame, keys) counts frames back from the chunk's first frame, in the order in which the "
        "keys lie; 0 for all keys of the chunk at hand, -1 for what is no frame (registers, padding)",
    )


def _faults(specimen: Specimen, frame: int, ages: list[int], moved: list[bool]) -> Iterator[str]:
    """What is wrong with these ages, given which keys moved when that frame changed."""
    here = (specimen.chunks - 1) * specimen.chunk
    age, oldest = max(0, here - frame), max(0, here - frame // specimen.chunk * specimen.chunk)
    early = [place for place, is_moved in enumerate(moved) if is_moved and ages[place] > oldest]
    if early:
        said = ages[early[0]]
        yield f"key {early[0]} is said to be {said} frames back, but changed with the frame {age} back"
    own = [is_moved for place, is_moved in enumerate(moved) if ages[place] == age]
    some_suffice = age == 0  # the other frames of the chunk at hand did not change
    if own and any(moved) and not (any(own) if some_suffice else all(own)):
        still = f"{own.count(False)} of {len(own)} keys"
        yield f"{still} said to be {age} frames back did not change with that frame"


def _prints(specimen: Specimen, video: Tensor, noisy: Tensor) -> Prints:
    """What tells the keys and values of the last chunk's passes apart from others."""
    prints: Prints = {}

    def note(at: Any, name: str, call: AttentionCall) -> Tensor:
        assert call.key_age is not None
        prints[at.role, name] = (call.key_age.tolist(), _sums(call.k) + _sums(call.v))
        return call.out

    last = specimen.chunks - 1
    context = specimen.remembered(video, last, specimen.cond())
    for run, clip in ((specimen.velocity, noisy), (specimen.encoded, video)):
        edit = AttentionEdit(specimen.model.attn_dict, {"*": note}, roles=("denoise", "encode"))
        try:
            with edit:
                run(clip, last, context, edit.on_pass)
        except SilentHookError:
            pass  # which `fires` tells
    return prints


def _sums(x: Tensor) -> Tensor:
    """A weighted sum for each key [k] of all rows, heads and channels."""
    weights = torch.arange(1, x.shape[-1] + 1, device=x.device).float().cos()
    return (x.float() @ weights).sum((0, 1))
