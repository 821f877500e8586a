"""What a model does with the past: contexts are values, rows are apart, nothing comes from later frames."""

import copy

import torch
from torch import Tensor

from framelens.diffusion.contract import module_of
from framelens.diffusion.guidance import null_like
from framelens.probes.check.specimen import Check, Specimen, changed, difference


def velocity(specimen: Specimen) -> Check:
    """A velocity has the shape of the frames and is finite."""
    noisy, video = specimen.clip(1), specimen.clip(0)
    velocities = specimen.walk(video, noisy, specimen.cond())
    wanted = tuple(noisy[:, specimen.frames(0)].shape)
    shapes = sorted({tuple(one.shape) for one in velocities})
    finite = all(bool(torch.isfinite(one).all()) for one in velocities)
    size = torch.cat([one.flatten() for one in velocities]).float().square().mean().sqrt().item()
    first = "" if specimen.first == 0 else "; the first chunk has to be given"
    return Check(
        "velocity",
        "denoise gives a finite velocity of the frames' shape",
        f"{', '.join(map(str, shapes))} for {wanted}, root mean square {size:.2g}{first}",
        shapes == [wanted] and finite and size > 0,
        "denoise returns eps - x0 as [b f c h w]; a network whose last layer is zero has yet to be trained",
    )


def context(specimen: Specimen) -> Check:
    """A context gives the same whatever was done with it, and can be gone on from twice."""
    video, other, last = specimen.clip(0), specimen.clip(2), specimen.chunks - 1
    cond = specimen.cond()

    def asked(of: object) -> Tensor:
        return specimen.velocity(specimen.clip(1), last - 1, of)

    old = specimen.remembered(video, last - 1, cond)
    before, repeated = asked(old), asked(old)
    new = specimen.encoded(video, last - 1, old)
    later = specimen.velocity(specimen.clip(1), last, new)
    older = asked(old)
    branch = specimen.encoded(other, last - 1, old)
    branched = specimen.velocity(specimen.clip(1), last, branch)
    whole = changed(video, specimen.frames(last - 1), other)
    fresh = specimen.velocity(specimen.clip(1), last, specimen.remembered(whole, last, cond))
    still = specimen.velocity(specimen.clip(1), last, new)
    errors = {
        "asked again": difference(repeated, before),
        "after a newer one was made": difference(older, before),
        "gone on from a second time": difference(branched, fresh),
        "after that": difference(still, later),
    }
    return Check(
        "context",
        "a context is a value: what is done with it changes no later answer",
        ", ".join(f"{name} {error:.1e}" for name, error in errors.items()),
        errors["asked again"] == 0 and max(errors.values()) <= specimen.round_off,
        "keep nothing on the module between calls, change no context in place: encode returns a new one "
        "(models/parts/cache.py has a cache that is a value)",
    )


def rows(specimen: Specimen) -> Check:
    """Clips of a batch do not see each other."""
    video, noisy, cond = specimen.clip(0, 2), specimen.clip(1, 2), specimen.cond(2)
    together = specimen.walk(video, noisy, cond)
    other_video, other_noisy = (_second_row(clip, specimen.clip(2, 2)) for clip in (video, noisy))
    other_cond = None if cond is None else _second_row(cond, specimen.cond(2, 1))
    swapped = specimen.walk(other_video, other_noisy, other_cond)
    alone = specimen.walk(video[:1], noisy[:1], None if cond is None else cond[:1])
    seen = max(difference(b[:1], a[:1]) for a, b in zip(together, swapped, strict=True))
    other = max(difference(b[1:], a[1:]) for a, b in zip(together, swapped, strict=True))
    apart = max(difference(b, a[:1]) for a, b in zip(together, alone, strict=True))
    return Check(
        "rows",
        "clips of a batch do not see each other",
        f"changing the other clip changes {seen:.1e}, leaving it out {apart:.1e}; its own {other:.1e}",
        max(seen, apart) <= specimen.round_off and other > 0,
        "norms and attention run within a clip; the batch axis of cond and context is that of x",
    )


def _second_row(clip: Tensor, fresh: Tensor | None) -> Tensor:
    assert fresh is not None
    return torch.cat([clip[:1], fresh[1:].to(clip)])


def frames(specimen: Specimen) -> Check:
    """Later frames change nothing earlier, and earlier ones count."""
    video, noisy, cond, last = specimen.clip(0), specimen.clip(1), specimen.cond(), specimen.chunks - 1
    before = specimen.walk(video, noisy, cond)
    middle = specimen.frames(last - 1)
    later = specimen.walk(changed(video, middle, specimen.clip(2)), noisy, cond)
    noisier = specimen.walk(video, changed(noisy, specimen.frames(last), specimen.clip(3)), cond)
    leak = max(difference(a, b) for a, b in zip(later[:-1], before[:-1], strict=True))
    leak = max(leak, *(difference(a, b) for a, b in zip(noisier[:-1], before[:-1], strict=True)))
    past, own = difference(later[-1], before[-1]), difference(noisier[-1], before[-1])
    return Check(
        "frames",
        "a later frame changes nothing earlier, an earlier one counts",
        f"earlier frames change by {leak:.1e}; the next one by {past:.1e}, its own noise by {own:.1e}",
        leak == 0 and past > 0 and own > 0,
        "a leak comes of state that is kept between calls; a past that does not count, of encode",
    )


def conditions(specimen: Specimen) -> Check:
    """An action counts from its own frame on; a label or a prompt counts, and there may be none."""
    cond, last, takes = specimen.cond(), specimen.chunks - 1, specimen.said.takes
    if cond is None:
        return Check(
            "conditions", "conditions count, and no earlier than they are known", "there are none", None
        )
    fresh, video, noisy = specimen.cond(seed=1), specimen.clip(0), specimen.clip(1)
    assert fresh is not None
    before = specimen.walk(video, noisy, cond)
    if takes == "actions":
        after = specimen.walk(video, noisy, changed(cond, specimen.frames(last), fresh))
        leak = max((difference(a, b) for a, b in zip(after[:-1], before[:-1], strict=True)))
    else:
        after, leak = specimen.walk(video, noisy, fresh), 0.0
    effect, found = difference(after[-1], before[-1]), ""
    null = specimen.said.null_condition
    if null is not None:
        nothing = specimen.walk(video, noisy, null_like(cond, null))
        found = f"; without a condition by {difference(nothing[-1], before[-1]):.1e}"
        leak = leak if torch.isfinite(nothing[-1]).all() else float("inf")
    earlier = f", earlier frames by {leak:.1e}" if takes == "actions" else " (of the whole clip)"
    return Check(
        "conditions",
        "conditions count, and no earlier than they are known",
        f"other {takes} change the velocity by {effect:.1e}{earlier}{found}",
        effect > 0 and leak == 0,
        "start keeps cond for the whole clip, denoise and encode take that of their own frames alone",
    )


def parallel(specimen: Specimen) -> Check:
    """The pass over a whole clip, where there is one, says what cached passes say, and leaks nothing."""
    claim = "teacher_forced equals cached passes, and a later frame changes nothing earlier in it"
    teacher_forced = specimen.said.teacher_forced
    if teacher_forced is None:
        return Check("parallel", claim, "the model has no teacher_forced", None)
    if specimen.first:
        return Check("parallel", claim, "the model has to be given its first chunk", None)
    video, noisy, cond, last = specimen.clip(0), specimen.clip(1), specimen.cond(), specimen.chunks - 1
    chunks = torch.arange(specimen.chunks * specimen.chunk) // specimen.chunk
    sigma = torch.tensor([[specimen.sigma(int(chunk)) for chunk in chunks]], device=specimen.device)
    with torch.no_grad():
        whole = teacher_forced(video, noisy, sigma, cond)
        clips = (changed(clip, specimen.frames(last), specimen.clip(4)) for clip in (video, noisy))
        other = teacher_forced(*clips, sigma, cond)
    early, cached = slice(0, last * specimen.chunk), torch.cat(specimen.walk(video, noisy, cond), dim=1)
    error, leak = difference(whole, cached), difference(other[:, early], whole[:, early])
    allowed = specimen.round_off
    return Check(
        "parallel",
        claim,
        f"off by {error:.1e}, leaks {leak:.1e} (allowed {allowed:.0e} in {str(specimen.dtype)[6:]})",
        max(error, leak) <= allowed,
        "the mask lets a noisy frame see itself and earlier clean ones alone; positions, noise levels and "
        "conditions of both ways have to be the same",
    )


def copies(specimen: Specimen) -> Check:
    """A copy is a model of its own: the shuffled network, the null of every observation, is one."""
    model, module = specimen.model, module_of(specimen.model)
    kept = {id(weight): weight for weight in [*module.parameters(), *module.buffers()]}
    twin = copy.deepcopy(model, kept)  # without the weights' memory
    inside = {id(part) for part in module_of(twin).modules()}
    points = {**twin.hook_dict, **{name: point.module for name, point in twin.attn_dict.items()}}
    foreign = [name for name, module in points.items() if id(module) not in inside]
    video, noisy, cond = specimen.clip(0), specimen.clip(1), specimen.cond()
    pairs = zip(Specimen(twin, specimen.chunks, specimen.steps, specimen.seed).walk(video, noisy, cond),
                specimen.walk(video, noisy, cond), strict=True)  # fmt: skip
    error = max(difference(a, b) for a, b in pairs)
    return Check(
        "copies",
        "a copy of the model is whole: its points are its own, its velocity the same",
        f"differs by {error:.1e}; of {len(points)} points {len(foreign)} belong to another model"
        + (f" ({', '.join(foreign[:3])})" if foreign else ""),
        error == 0 and not foreign,
        "make hook_dict and attn_dict properties that name the model's own modules; keep no function that "
        "holds on to them",
    )
