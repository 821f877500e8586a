"""Checks of the past: contexts are values, clips of a batch are independent, no later frame leaks."""

import copy

import torch
from torch import Tensor

from framelens.diffusion.contract import module_of
from framelens.diffusion.guidance import null_like
from framelens.probes.check.attention import reads_past
from framelens.probes.check.checked_model import Check, CheckedModel, difference, replace_frames
from framelens.probes.check.geometry import count_rows


def velocity(checked: CheckedModel) -> Check:
    """A velocity has the shape of the frames and is finite."""
    noisy, video = checked.clip(1), checked.clip(0)
    velocities = checked.walk(video, noisy, checked.cond())
    wanted = tuple(noisy[:, checked.frames(0)].shape)
    shapes = sorted({tuple(one.shape) for one in velocities})
    finite = all(bool(torch.isfinite(one).all()) for one in velocities)
    size = torch.cat([one.flatten() for one in velocities]).float().square().mean().sqrt().item()
    first = "" if checked.first == 0 else "; the first chunk has to be given"
    return Check(
        "velocity",
        "denoise gives a finite velocity of the frames' shape",
        f"{', '.join(map(str, shapes))} for {wanted}, root mean square {size:.2g}{first}",
        shapes == [wanted] and finite and size > 0,
        "denoise returns eps - x0 as [b f c h w]; a network whose last layer is zero has yet to be trained",
    )


def context(checked: CheckedModel) -> Check:
    """A context gives the same answer after every use, and two futures can start from it."""
    video, other, last = checked.clip(0), checked.clip(2), checked.chunks - 1
    cond = checked.cond()

    def answer(of: object) -> Tensor:
        return checked.velocity(checked.clip(1), last - 1, of)

    old = checked.remember(video, last - 1, cond)
    before, repeated = answer(old), answer(old)
    new = checked.encode_chunk(video, last - 1, old)
    later = checked.velocity(checked.clip(1), last, new)
    older = answer(old)
    branch = checked.encode_chunk(other, last - 1, old)
    branched = checked.velocity(checked.clip(1), last, branch)
    whole = replace_frames(video, checked.frames(last - 1), other)
    fresh = checked.velocity(checked.clip(1), last, checked.remember(whole, last, cond))
    still = checked.velocity(checked.clip(1), last, new)
    errors = {
        "used again": difference(repeated, before),
        "after a newer one was made": difference(older, before),
        "continued a second time": difference(branched, fresh),
        "after that": difference(still, later),
    }
    return Check(
        "context",
        "a context is a value: no use of it changes a later answer",
        ", ".join(f"{name} {error:.1e}" for name, error in errors.items()),
        errors["used again"] == 0 and max(errors.values()) <= checked.round_off,
        "keep nothing on the module between calls, change no context in place: encode returns a new one "
        "(models/parts/cache.py has a cache that is a value)",
    )


def rows(checked: CheckedModel) -> Check:
    """Clips of a batch do not see each other, and each has one row of what instruments read."""
    video, noisy, cond = checked.clip(0, 2), checked.clip(1, 2), checked.cond(2)
    together = checked.walk(video, noisy, cond)
    other_video, other_noisy = (_second_row(clip, checked.clip(2, 2)) for clip in (video, noisy))
    other_cond = None if cond is None else _second_row(cond, checked.cond(2, 1))
    swapped = checked.walk(other_video, other_noisy, other_cond)
    alone = checked.walk(video[:1], noisy[:1], None if cond is None else cond[:1])
    seen = max(difference(b[:1], a[:1]) for a, b in zip(together, swapped, strict=True))
    other = max(difference(b[1:], a[1:]) for a, b in zip(together, swapped, strict=True))
    apart = max(difference(b, a[:1]) for a, b in zip(together, alone, strict=True))
    strange = count_rows(checked)
    found = f"changing the other clip changes {seen:.1e}, leaving it out {apart:.1e}; its own {other:.1e}"
    if strange:
        name, count = next(iter(strange.items()))
        found = f"{name} and {len(strange) - 1} more have {count} rows for 1 clip; {found}"
    return Check(
        "rows",
        "clips of a batch do not see each other, and have one row each",
        found,
        max(seen, apart) <= checked.round_off and other > 0 and not strange,
        "norms and attention run within a clip; the batch axis of hook points, attention, cond and context "
        "is that of x: run guidance by --guidance, which makes a pass of each branch, not as one batch",
    )


def _second_row(clip: Tensor, fresh: Tensor | None) -> Tensor:
    assert fresh is not None
    return torch.cat([clip[:1], fresh[1:].to(clip)])


def frames(checked: CheckedModel) -> Check:
    """A later frame changes no earlier velocity; an earlier frame changes later ones."""
    video, noisy, cond, last = checked.clip(0), checked.clip(1), checked.cond(), checked.chunks - 1
    before = checked.walk(video, noisy, cond)
    middle = checked.frames(last - 1)
    later = checked.walk(replace_frames(video, middle, checked.clip(2)), noisy, cond)
    noisier = checked.walk(video, replace_frames(noisy, checked.frames(last), checked.clip(3)), cond)
    leak = max(difference(a, b) for a, b in zip(later[:-1], before[:-1], strict=True))
    leak = max(leak, *(difference(a, b) for a, b in zip(noisier[:-1], before[:-1], strict=True)))
    past, own = difference(later[-1], before[-1]), difference(noisier[-1], before[-1])
    ignores = past == 0 and reads_past(checked, middle)
    note = ": it attends to its past, but ignores what it reads" if ignores else ""
    return Check(
        "frames",
        "a later frame changes no earlier velocity, an earlier frame changes later ones",
        f"earlier frames change by {leak:.1e}; the next one by {past:.1e}, its own noise by {own:.1e}{note}",
        leak == 0 and (past > 0 or ignores) and own > 0,
        "a leak comes from state that is kept between calls; a past without effect comes from encode",
    )


def conditions(checked: CheckedModel) -> Check:
    """An action has an effect from its own frame on; a label or a prompt has an effect."""
    cond, last, takes = checked.cond(), checked.chunks - 1, checked.traits.takes
    if cond is None:
        return Check(
            "conditions", "conditions have an effect, and none before they are known", "there are none", None
        )
    fresh, video, noisy = checked.cond(seed=1), checked.clip(0), checked.clip(1)
    assert fresh is not None
    before = checked.walk(video, noisy, cond)
    if takes == "actions":
        after = checked.walk(video, noisy, replace_frames(cond, checked.frames(last), fresh))
        leak = max((difference(a, b) for a, b in zip(after[:-1], before[:-1], strict=True)))
    else:
        after, leak = checked.walk(video, noisy, fresh), 0.0
    effect, found = difference(after[-1], before[-1]), ""
    null = checked.traits.null_condition
    if null is not None:
        nothing = checked.walk(video, noisy, null_like(cond, null))
        found = f"; without a condition by {difference(nothing[-1], before[-1]):.1e}"
        leak = leak if torch.isfinite(nothing[-1]).all() else float("inf")
    earlier = f", earlier frames by {leak:.1e}" if takes == "actions" else " (of the whole clip)"
    return Check(
        "conditions",
        "conditions have an effect, and none before they are known",
        f"other {takes} change the velocity by {effect:.1e}{earlier}{found}",
        effect > 0 and leak == 0,
        "start keeps cond for the whole clip, denoise and encode take that of their own frames alone",
    )


def parallel(checked: CheckedModel) -> Check:
    """The pass over a whole clip, if there is one, equals cached passes, and no later frame leaks."""
    claim = "teacher_forced equals cached passes, and a later frame changes nothing earlier in it"
    teacher_forced = checked.traits.teacher_forced
    if teacher_forced is None:
        return Check("parallel", claim, "the model has no teacher_forced", None)
    if checked.first:
        return Check("parallel", claim, "the model has to be given its first chunk", None)
    video, noisy, cond, last = checked.clip(0), checked.clip(1), checked.cond(), checked.chunks - 1
    chunks = torch.arange(checked.chunks * checked.chunk) // checked.chunk
    sigma = torch.tensor([[checked.sigma(int(chunk)) for chunk in chunks]], device=checked.device)
    with torch.no_grad():
        whole = teacher_forced(video, noisy, sigma, cond)
        clips = (replace_frames(clip, checked.frames(last), checked.clip(4)) for clip in (video, noisy))
        other = teacher_forced(*clips, sigma, cond)
    early, cached = slice(0, last * checked.chunk), torch.cat(checked.walk(video, noisy, cond), dim=1)
    error, leak = difference(whole, cached), difference(other[:, early], whole[:, early])
    allowed = checked.round_off
    return Check(
        "parallel",
        claim,
        f"off by {error:.1e}, leaks {leak:.1e} (allowed {allowed:.0e} in {str(checked.dtype)[6:]})",
        max(error, leak) <= allowed,
        "the mask lets a noisy frame see only itself and earlier clean frames; positions, noise levels and "
        "conditions of both ways must be equal",
    )


def copies(checked: CheckedModel) -> Check:
    """A copy shares nothing with its original: the null model is such a copy."""
    model, module = checked.model, module_of(checked.model)
    kept = {id(weight): weight for weight in [*module.parameters(), *module.buffers()]}
    copied = copy.deepcopy(model, kept)  # without the weights' memory
    inside = {id(part) for part in module_of(copied).modules()}
    points = {**copied.hook_dict, **{name: point.module for name, point in copied.attn_dict.items()}}
    foreign = [name for name, module in points.items() if id(module) not in inside]
    video, noisy, cond = checked.clip(0), checked.clip(1), checked.cond()
    pairs = zip(CheckedModel(copied, checked.chunks, checked.steps, checked.seed).walk(video, noisy, cond),
                checked.walk(video, noisy, cond), strict=True)  # fmt: skip
    error = max(difference(a, b) for a, b in pairs)
    return Check(
        "copies",
        "a copy of the model is whole: its points are its own, its velocity the same",
        f"differs by {error:.1e}; of {len(points)} points {len(foreign)} belong to another model"
        + (f" ({', '.join(foreign[:3])})" if foreign else ""),
        error == 0 and not foreign,
        "make hook_dict and attn_dict properties that return the model's own modules; keep no function that "
        "refers to the modules",
    )
