"""Checks of attention: patterns give the kernel's output, and key_age gives the true age of each key."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from framelens.hooks import SilentHookError
from framelens.hooks.attention import Pattern
from framelens.hooks.attention_edit import AttentionCall, AttentionEdit, mask_other_frames
from framelens.probes.check.checked_model import ROUND_OFF, Check, CheckedModel, difference, replace_frames

QUERIES = 32
"""Number of queries of a call whose pattern is checked."""
Prints = dict[tuple[str, str], tuple[list[int], Tensor]]
"""By kind of pass and module: the age of each key, and one number per key that changes with the key."""


def patterns(checked: CheckedModel) -> Check:
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

    edit = AttentionEdit(checked.model.attn_dict, {"*": look}, roles=("denoise", "encode", "ask"))
    try:
        with edit:
            checked.walk(checked.clip(0), checked.clip(1), checked.cond(), edit.on_pass)
    except SilentHookError:
        pass  # `fires` reports this
    largest = {name: max(values, default=0.0) for name, values in errors.items()}
    allowed = max(tolerances, default=0.0)
    is_right = largest["output"] <= allowed and largest["sum"] <= 1e-4 and bool(errors["output"])
    return Check(
        "patterns",
        "patterns sum to one, have no mass on future frames, and give the kernel's output",
        f"{len(errors['future'])} calls: sums off by {largest['sum']:.1e}, {largest['future']:.0f} keys "
        f"of future frames, output off by {largest['output']:.1e} (allowed {allowed:.0e})",
        is_right and not largest["future"],
        "key_age must be 0 for the current chunk, 1, 2, ... frames back, and -1 for other keys; the "
        "kernel must compute softmax(scale q k^T) v, without mask or dropout",
    )


def _some_queries(call: AttentionCall) -> tuple[Pattern, Tensor]:
    """The pattern of some queries of a call, and its output for them."""
    if call.fold > 1:
        return Pattern(call.q, call.k, call.scale, call.key_age, fold=call.fold), call.out
    count = call.q.shape[2]
    chosen = torch.linspace(0, count - 1, min(count, QUERIES), device=call.q.device).round().long()
    q, out = (part.index_select(2, chosen) for part in (call.q, call.out))
    return Pattern(q, call.k, call.scale, call.key_age), out


def key_age(checked: CheckedModel) -> Check:
    """Keys belong to the frames that key_age declares: a changed frame changes no key of an earlier frame.

    One frame is replaced. The keys and values of each attention module in the last chunk's passes are then
    compared with those before. Keys of that frame must change; keys of later frames may change through
    deeper layers; keys of earlier frames cannot, nor can those that are of no frame. Where a pass carries
    tokens of several frames, they attend to their own frame alone here: in deeper layers each has seen all.
    """
    last = checked.chunks - 1
    before, faults, compared = _prints(checked, checked.clip(0), checked.clip(1)), [], 0
    for frame in range((last + 1) * checked.chunk):
        span = slice(frame, frame + 1)
        clips = (replace_frames(checked.clip(seed), span, checked.clip(seed + 2)) for seed in (0, 1))
        after = _prints(checked, *clips)
        for key, (ages, values) in before.items():
            moved = (after[key][1] != values).tolist()
            compared += len(moved)
            faults += [f"{key[1]} ({key[0]}): {fault}" for fault in _faults(checked, frame, ages, moved)]
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return Check(
        "key_age",
        "keys change with the frames that key_age declares, and not with later ones",
        f"{faults[0]}{more}" if faults else f"{compared} keys compared under changes of {frame + 1} frames",
        not faults and compared > 0,
        "key_age(frame, keys) counts frames back from the chunk's first frame, in the order of the keys: 0 "
        "for all keys of the current chunk, -1 for keys that are not of a frame (registers, padding); a key "
        "that remembers several frames has the age of the newest one",
    )


def reads_past(checked: CheckedModel, frames: slice) -> bool:
    """Whether keys or values of the past change with these frames in the last chunk's denoising pass; False
    where the keys are not as many as key_age says."""
    clips = (checked.clip(0), replace_frames(checked.clip(0), frames, checked.clip(2)))
    try:
        before, after = (_prints(checked, clip, checked.clip(1)) for clip in clips)
    except ValueError:
        return False
    return any(
        bool(((after[key][1] != values) & (torch.tensor(ages) > 0).to(values.device)).any())
        for key, (ages, values) in before.items()
        if key[0] == "denoise"
    )


def _faults(checked: CheckedModel, frame: int, ages: list[int], moved: list[bool]) -> Iterator[str]:
    """The faults of these ages, given which keys changed with that frame."""
    here = (checked.chunks - 1) * checked.chunk
    age, oldest = max(0, here - frame), max(0, here - frame // checked.chunk * checked.chunk)
    for place, is_moved in enumerate(moved):
        if is_moved and not 0 <= ages[place] <= oldest:
            declared = f"{ages[place]} frames back" if ages[place] >= 0 else "of no frame"
            yield f"key {place} is declared {declared}, but changed with the frame {age} back"
            break
    own = [is_moved for place, is_moved in enumerate(moved) if ages[place] == age]
    some_suffice = age == 0  # the other frames of the current chunk did not change
    if own and any(moved) and not (any(own) if some_suffice else all(own)):
        still = f"{own.count(False)} of {len(own)} keys"
        yield f"{still} declared {age} frames back did not change with that frame"


def _prints(checked: CheckedModel, video: Tensor, noisy: Tensor) -> Prints:
    """Ages and fingerprints of the keys and values in the last chunk's passes."""
    prints: Prints = {}

    def note(at: Any, name: str, call: AttentionCall) -> Tensor:
        assert call.key_age is not None
        prints[at.role, name] = (call.key_age.tolist(), _sums(call.k) + _sums(call.v))
        carried = call.key_age[-call.q.shape[2] :]
        return mask_other_frames(call) if (carried != 0).any() else call.out

    last = checked.chunks - 1
    context = checked.remember(video, last, checked.cond())
    for run, clip in ((checked.velocity, noisy), (checked.encode_chunk, video)):
        edit = AttentionEdit(checked.model.attn_dict, {"*": note}, roles=("denoise", "encode"))
        try:
            with edit:
                run(clip, last, context, edit.on_pass)
        except SilentHookError:
            pass  # `fires` reports this
    return prints


def _sums(x: Tensor) -> Tensor:
    """A weighted sum for each key [k] of all rows, heads and channels."""
    weights = torch.arange(1, x.shape[-1] + 1, device=x.device).float().cos()
    return (x.float() @ weights).sum((0, 1))
