"""AttentionEdit: replace what fused attention returns. cut: attention that sees no other frame.

    with cut(model.attn_dict, ["blocks.9.attn", "blocks.10.attn"]) as edit:
        video = rollout(model, noise, sigmas, on_pass=edit.on_pass)

An edit receives the call (queries, keys, values, the age of the keys, the result) and returns the result that
the network continues with. Every pass must be announced: give `on_pass` to the sampler.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from itertools import groupby
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from framelens.hooks._calls import AttentionCall, AttentionInstrument, AttentionPoint
from framelens.hooks._instrument import assign_by_pattern, match_names, require_same_form
from framelens.hooks.fold import merge_rows, split_rows
from framelens.hooks.kernel import unwatched_attention

__all__ = ["AttentionCall", "AttentionEdit", "cut", "mask_later_frames", "mask_other_frames"]

ReplaceAttention = Callable[[Any, str, AttentionCall], Tensor]


class AttentionEdit(AttentionInstrument):
    """Replaces the result of the attention call in each matching module by `edits[pattern](at, name, call)`.

    `call` is an AttentionCall; the new result must have the shape and dtype of `call.out`, [b h q d]. Only
    announced passes of these `roles` are edited: finished frames are encoded unedited unless "encode" is one
    of them. Each watched module must be called exactly once per pass. ValueError where two patterns match
    one name and for a pass that was not announced; otherwise the errors of AttentionTap.
    """

    def __init__(
        self,
        points: Mapping[str, AttentionPoint],
        edits: Mapping[str, ReplaceAttention],
        roles: Iterable[str] = ("denoise",),
    ):
        super().__init__(points, edits)
        self.edits, self.roles = assign_by_pattern(self.points, edits), frozenset(roles)

    def _on_call(self, name: str, call: AttentionCall) -> Tensor:
        if self.at is None:
            raise ValueError(
                f"attention in {name!r} is edited in a pass that was not announced; give the sampler on_pass"
            )
        if self.at.role not in self.roles:
            return call.out
        # The result has the form of the queries where values are as wide; it need not be computed for that.
        like = merge_rows(call.q, call.fold) if call.q.shape[-1] == call.v.shape[-1] else call.out
        return require_same_form(name, like, self.edits[name](self.at, name, call))


def cut(
    points: Mapping[str, AttentionPoint],
    patterns: str | Iterable[str] = "*",
    heads: Iterable[int] | None = None,
    roles: Iterable[str] = ("denoise",),
) -> AttentionEdit:
    """An AttentionEdit under which the matching modules, or only these heads, attend to their own frame.

    Registers, tokens of no frame that the pass carries, are hidden from frames too where a module before it
    (in the order of `points`) is not cut in all heads: there they have read the past. ValueError for a head
    that a module does not have, raised in its first pass.
    """
    chosen = None if heads is None else sorted(set(heads))
    matching = match_names(points, patterns)
    order = list(points)
    clean = {name for name in matching if chosen is None and set(order[: order.index(name)]) <= {*matching}}
    clean |= {*matching[:1]} & {*order[:1]}

    def edit(_at: Any, name: str, call: AttentionCall) -> Tensor:
        if chosen is None:
            return mask_other_frames(call, name in clean)
        if not chosen or min(chosen) < 0 or max(chosen) >= call.q.shape[1]:
            raise ValueError(f"{name!r} has heads 0 to {call.q.shape[1] - 1}, got {chosen}")
        out = call.out.clone()
        out[:, chosen] = mask_other_frames(call, name in clean)[:, chosen]
        return out

    return AttentionEdit(points, dict.fromkeys(matching, edit), roles)


def carries_registers(call: AttentionCall) -> bool:
    """Whether tokens of no frame are among the queries, beside older keys from which they read the past."""
    assert call.key_age is not None
    return _carries_registers(tuple(call.key_age.tolist()), call.q.shape[2])


@lru_cache(maxsize=64)
def _carries_registers(ages: tuple[int, ...], queries: int) -> bool:
    return -1 in ages[-queries:] and max(ages) > 0


def mask_other_frames(call: AttentionCall, registers: bool = True) -> Float[Tensor, "b h q d"]:
    """The call's result under a frame-diagonal mask: the softmax runs over the keys of a query's own frame.

    The queries are the last of the keys' tokens, so a query has the age of its own key. Keys of age -1 (text,
    a start token) belong to no frame and stay visible; a query of age -1 sees only those. Where the pass
    carries tokens of no frame (`carries_registers`), these stay visible to frames only if `registers`: they
    hold the past unless they were cut off from it in every layer before. Where nothing is masked, this is the
    call's own result. ValueError where there are more queries than keys.
    """
    assert call.key_age is not None
    ages, queries = tuple(call.key_age.tolist()), call.q.shape[2]
    if queries > len(ages):
        raise ValueError(f"{queries} queries over {len(ages)} keys are not self-attention and cannot be cut")
    parts = []
    for span, kept in _visible_keys(ages, queries, registers):
        if kept is None:
            parts.append(split_rows(call.out, call.fold)[:, :, span])
        else:
            keys, values = (_select_keys(part, kept) for part in (call.k, call.v))
            parts.append(unwatched_attention(call.q[:, :, span], keys, values, scale=call.scale))
    return merge_rows(parts[0] if len(parts) == 1 else torch.cat(parts, dim=2), call.fold)


Kept = slice | Tensor | None
"""Keys: a span of them, their places, or None for all."""


@lru_cache(maxsize=64)
def _visible_keys(ages: tuple[int, ...], queries: int, registers: bool) -> list[tuple[slice, Kept]]:
    """The queries of one age after another, and the keys that they see."""
    is_hidden = not registers and _carries_registers(ages, queries)
    others = [place for place, age in enumerate(ages) if age == -1]
    others = [place for place in others if not is_hidden or place < len(ages) - queries]
    found, start = [], 0
    for age, run in groupby(ages[-queries:]):
        span = slice(start, start := start + len(list(run)))
        kept = sorted({*others, *(place for place, each in enumerate(ages) if each == age)})
        if len(kept) == len(ages):
            found.append((span, None))
        elif kept[-1] - kept[0] + 1 == len(kept):
            found.append((span, slice(kept[0], kept[-1] + 1)))
        else:
            found.append((span, torch.tensor(kept)))
    return found


def _select_keys(keys: Float[Tensor, "b h k d"], kept: slice | Tensor) -> Float[Tensor, "b h kept d"]:
    """The keys at these places; without a copy where they are consecutive, as those of one frame are."""
    if isinstance(kept, slice):
        return keys[:, :, kept]
    return keys.index_select(2, kept.to(keys.device))


def mask_later_frames(call: AttentionCall, frames: int) -> Float[Tensor, "b h q d"]:
    """The call's result under a frame-causal mask, for queries of that many frames in their order.

    The queries are the last of the keys' tokens, with the frame as the slowest axis and equally many tokens
    for each frame; keys before them are the past and stay visible. ValueError where the queries do not divide
    into frames.
    """
    queries, keys = call.q.shape[2], call.k.shape[2]
    if queries % frames or queries > keys:
        raise ValueError(
            f"{queries} queries over {keys} keys do not divide into {frames} frames of themselves"
        )
    tokens = queries // frames
    parts = [split_rows(call.out, call.fold)[:, :, queries - tokens :]]
    for frame in reversed(range(frames - 1)):
        own, seen = slice(frame * tokens, (frame + 1) * tokens), keys - (frames - 1 - frame) * tokens
        parts.insert(
            0,
            unwatched_attention(
                call.q[:, :, own], call.k[:, :, :seen], call.v[:, :, :seen], scale=call.scale
            ),
        )
    return merge_rows(torch.cat(parts, dim=2), call.fold)
