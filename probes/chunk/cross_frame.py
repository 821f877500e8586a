"""Conditions on the cross-frame part of attention, many in one batch: a mode for each layer and head.

The cross-frame part is the result of attention over all keys minus its result over the keys of its own
frame alone (and keys of no frame). The rest is a complete frame-diagonal attention with its own softmax. A
stored part is added to the frame-diagonal attention of a later pass. Registers that the pass carries have
read the past in earlier layers, so they belong to the cross-frame part, unless all earlier layers are cut.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from framelens.hooks.attention_edit import AttentionCall, AttentionEdit, carries_registers, mask_other_frames
from framelens.probes.chunk.chunk_probe import DRAWS, ChunkProbe, OnPass

LIVE, CUT, STORED = 0, 1, 2
"""Attention unchanged; without its cross-frame part; with a stored cross-frame part."""

Modes = Int[Tensor, "k layer head"]
Stored = Mapping[str, Float[Tensor, "b head q dh"]]


def live(probe: ChunkProbe) -> Int[Tensor, "layer head"]:
    """The modes of the plain model, to be changed."""
    return torch.full((len(probe.layers), probe.model.geometry.heads), LIVE, device=probe.noise.device)


def through(probe: ChunkProbe, layer: int, mode: int, above: int = LIVE) -> Int[Tensor, "layer head"]:
    """One mode in layers 0 to `layer`, another above."""
    modes = live(probe)
    modes[: layer + 1], modes[layer + 1 :] = mode, above
    return modes


@contextmanager
def edit_cross_part(
    probe: ChunkProbe, modes: Int[Tensor, "b layer head"], stored: Stored
) -> Iterator[OnPass]:
    """The callback for passes in which row b has the modes modes[b] and its row of the stored parts."""

    by_layer, rows_of = modes.unbind(1), _changed_rows(modes)
    uses_stored = (modes == STORED).any(dim=2).any(dim=0).tolist()
    has_live = [bool((mode[rows] == LIVE).any()) for mode, rows in zip(by_layer, rows_of, strict=True)]

    def edit(_at: Any, name: str, call: AttentionCall) -> Tensor:
        layer = probe.attention[name]
        rows = rows_of[layer] if len(call.q) == len(modes) else slice(0, len(call.q))
        mode, some = by_layer[layer][rows, :, None, None], call.of_rows(rows)
        replaced = own = _attend_own(probe, modes[rows], name, some)
        if uses_stored[layer]:
            replaced = torch.where(mode == STORED, own + stored[name][rows], own)
        if has_live[layer]:
            replaced = torch.where(mode == LIVE, some.out, replaced)
        before = [call.of_rows(slice(0, rows.start)).out] if rows.start else []
        after = [call.of_rows(slice(rows.stop, None)).out] if rows.stop < len(call.q) else []
        return torch.cat([*before, replaced, *after])

    edits = {name: edit for name, layer in probe.attention.items() if rows_of[layer].stop}
    if not edits:
        yield lambda at: None
        return
    with AttentionEdit(probe.model.attn_dict, edits) as instrument:
        yield instrument.on_pass


def _changed_rows(modes: Modes) -> list[slice]:
    """For each layer the rows from the first to the last that are not live in it."""
    found = []
    for changed in (modes != LIVE).any(dim=2).T.tolist():
        rows = [row for row, is_changed in enumerate(changed) if is_changed] or [-1]
        found.append(slice(max(rows[0], 0), rows[-1] + 1))
    return found


def _attend_own(probe: ChunkProbe, modes: Modes, name: str, call: AttentionCall) -> Tensor:
    """The frame-diagonal attention of each row; with registers where they have read nothing of the past."""
    earlier = probe.before(name)
    if not earlier or not carries_registers(call):
        return mask_other_frames(call)
    is_cut = (modes[:, earlier] == CUT).all(2).all(1) & (modes[:, probe.attention[name]] != STORED).all(1)
    hiding = mask_other_frames(call, registers=False)
    return torch.where(is_cut[:, None, None, None], mask_other_frames(call), hiding)


def generate(
    probe: ChunkProbe, modes: Modes, stored: Stored, first: int = 0
) -> Float[Tensor, "k draw f c h w"]:
    """The generated frames of each condition, from step `first` of the plain path on."""
    parts = []
    for rows, kept, starting in _batches(probe, modes, probe.path[first], stored):
        with edit_cross_part(probe, rows, kept) as on_pass:

            def velocity(x: Tensor, step: int, on_pass: OnPass = on_pass) -> Tensor:
                return probe.velocity(x, probe.sigma(step), step, [on_pass])

            parts.append(probe.generate(starting, velocity, first))
    return _join(parts, len(modes))


def generate_refreshed(probe: ChunkProbe, modes: Modes, every: int) -> Float[Tensor, "k draw f c h w"]:
    """The frames of each condition when parts are stored at steps 0, k, 2k, ... and used until the next."""
    parts = []
    for rows, _, starting in _batches(probe, modes, probe.noise, {}):
        newest: dict[str, Tensor] = {}

        def velocity(x: Tensor, step: int, rows: Tensor = rows, newest: dict = newest) -> Tensor:
            if step % every == 0:
                whole, features = probe.record(x, probe.sigma(step), step)
                newest.update(features.cross)
                return whole
            with edit_cross_part(probe, rows, newest) as on_pass:
                return probe.velocity(x, probe.sigma(step), step, [on_pass])

        parts.append(probe.generate(starting, velocity))
    return _join(parts, len(modes))


def velocities(probe: ChunkProbe, modes: Modes, stored: Stored) -> Float[Tensor, "k sigma draw f c h w"]:
    """The velocities of each condition at the true frame, noised to each of the probe's levels."""
    by_level = []
    for step, sigma in enumerate(probe.levels.tolist()):
        parts = []
        for rows, kept, x in _batches(probe, modes, probe.at_level(sigma), stored):
            with edit_cross_part(probe, rows, kept) as on_pass:
                parts.append(probe.velocity(x, sigma, step, [on_pass]))
        by_level.append(_join(parts, len(modes)))
    return torch.stack(by_level, dim=1)


def _batches(
    probe: ChunkProbe, modes: Modes, x: Tensor, stored: Stored
) -> Iterator[tuple[Tensor, Stored, Tensor]]:
    """Modes, stored parts and noisy frames of equally large batches; the last one repeats its last row."""
    size = probe.batch
    kept = {name: part.repeat(size, 1, 1, 1) for name, part in stored.items()}
    for start in range(0, len(modes), size):
        some = modes[start : start + size]
        some = torch.cat([some, some[-1:].expand(size - len(some), -1, -1)])
        yield some.repeat_interleave(DRAWS, dim=0), kept, x.repeat(size, 1, 1, 1, 1)


def _join(parts: list[Tensor], conditions: int) -> Tensor:
    rows = torch.cat(parts)
    return rows.unflatten(0, (-1, DRAWS))[:conditions]
