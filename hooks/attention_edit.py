"""AttentionEdit: replace what fused attention returns. cut: attention that sees no other frame.

    with cut(model.attn_dict, ["blocks.9.attn", "blocks.10.attn"]) as edit:
        video = rollout(model, noise, sigmas, on_pass=edit.on_pass)

An edit is given the call (queries, keys, values, how old the keys are, the result) and returns the result to
go on with. Nothing is announced by itself: give `on_pass` to the sampler.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as kernel  # the function that nobody replaced

from framelens.hooks._calls import AttentionCall, AttentionInstrument, AttentionPoint
from framelens.hooks.edit import alike
from framelens.hooks.fold import apart, side_by_side

__all__ = ["AttentionCall", "AttentionEdit", "cut", "frame_causal", "frame_diagonal"]

ReplaceAttention = Callable[[Any, str, AttentionCall], Tensor]


class AttentionEdit(AttentionInstrument):
    """Puts `edits[pattern](at, name, call)` in place of what the attention call in each watched module gives.

    Only in announced passes of these `roles`: finished frames are taken into memory unedited unless
    "encode" is among them. The new result must have the old one's shape and dtype. Refusals and the law of
    firing are AttentionTap's; ValueError for a pass that was not announced.
    """

    def __init__(
        self,
        points: Mapping[str, AttentionPoint],
        edits: Mapping[str, ReplaceAttention],
        roles: Iterable[str] = ("denoise",),
    ):
        super().__init__(points, edits)
        self.edits, self.roles = dict(edits), frozenset(roles)

    def _heard(self, name: str, call: AttentionCall) -> Tensor:
        if self.at is None:
            raise ValueError(
                f"attention in {name!r} is edited in a pass that nobody announced; give the sampler on_pass"
            )
        if self.at.role not in self.roles:
            return call.out
        for pattern, edit in self.edits.items():
            if fnmatchcase(name, pattern):
                call = replace(call, out=alike(name, call.out, edit(self.at, name, call)))
        return call.out


def cut(
    points: Mapping[str, AttentionPoint],
    patterns: str | Iterable[str] = "*",
    heads: Iterable[int] | None = None,
    roles: Iterable[str] = ("denoise",),
) -> AttentionEdit:
    """An AttentionEdit under which the matching modules see their own frame alone, or these heads of them do.

    ValueError for a head that a module does not have, when it is met.
    """
    chosen = None if heads is None else sorted(set(heads))

    def edit(_at: Any, name: str, call: AttentionCall) -> Tensor:
        if chosen is None:
            return frame_diagonal(call)
        if not chosen or min(chosen) < 0 or max(chosen) >= call.q.shape[1]:
            raise ValueError(f"{name!r} has heads 0 to {call.q.shape[1] - 1}, got {chosen}")
        out = call.out.clone()
        out[:, chosen] = frame_diagonal(call)[:, chosen]
        return out

    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    return AttentionEdit(points, dict.fromkeys(patterns, edit), roles)


def frame_diagonal(call: AttentionCall) -> Float[Tensor, "b h q d"]:
    """The call's result under a frame-diagonal mask: the softmax runs over the keys of a query's own frame.

    The queries are the last of the keys' tokens, so a query is as old as its own key. Keys of age -1 (text,
    a start token) belong to no frame and stay; a query of age -1 keeps only those. Where nothing is masked
    this is the call's own result.
    """
    assert call.key_age is not None
    ages, queries, out = call.key_age.cpu(), call.q.shape[2], apart(call.out, call.fold)
    if queries > len(ages):
        raise ValueError(f"{queries} queries over {len(ages)} keys are no self-attention; they cannot be cut")
    runs, lengths = ages[-queries:].unique_consecutive(return_counts=True)
    parts, start = [], 0
    for age, length in zip(runs.tolist(), lengths.tolist(), strict=True):
        span = slice(start, start := start + length)
        kept = ((ages == age) | (ages == -1)).nonzero().squeeze(1)
        if len(kept) == len(ages):
            parts.append(out[:, :, span])
        else:
            keys, values = (_of(part, kept) for part in (call.k, call.v))
            parts.append(kernel(call.q[:, :, span], keys, values, scale=call.scale))
    return side_by_side(parts[0] if len(parts) == 1 else torch.cat(parts, dim=2), call.fold)


def _of(keys: Float[Tensor, "b h k d"], kept: Int[Tensor, " kept"]) -> Float[Tensor, "b h kept d"]:
    """These keys; where they lie behind one another, as those of one frame do, without a copy."""
    first, last = int(kept[0]), int(kept[-1])
    if last - first + 1 == len(kept):
        return keys[:, :, first : last + 1]
    return keys.index_select(2, kept.to(keys.device))


def frame_causal(call: AttentionCall, frames: int) -> Float[Tensor, "b h q d"]:
    """The call's result under a frame-causal mask, for queries of that many frames in their order.

    The queries are the last of the keys' tokens, an equal number for each frame, frame slowest; keys before
    them are the past and stay. ValueError where the queries do not divide into frames.
    """
    queries, keys = call.q.shape[2], call.k.shape[2]
    if queries % frames or queries > keys:
        raise ValueError(
            f"{queries} queries over {keys} keys do not divide into {frames} frames of themselves"
        )
    tokens = queries // frames
    parts = [apart(call.out, call.fold)[:, :, queries - tokens :]]
    for frame in reversed(range(frames - 1)):
        own, seen = slice(frame * tokens, (frame + 1) * tokens), keys - (frames - 1 - frame) * tokens
        parts.insert(0, kernel(call.q[:, :, own], call.k[:, :, :seen], call.v[:, :, :seen], scale=call.scale))
    return side_by_side(torch.cat(parts, dim=2), call.fold)
