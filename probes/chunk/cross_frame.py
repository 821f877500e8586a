"""Many conditions on the cross-frame part of attention at once, each a row of modes by layer and head.

The cross-frame part is what attention gives over all keys minus what it gives over its own frame's keys
alone (and those of no frame): the rest is a whole frame-diagonal attention, softmax and all. A stored part is
added to the frame-diagonal attention of a later pass.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from framelens.hooks.attention_edit import AttentionCall, AttentionEdit, mask_other_frames
from framelens.probes.chunk.stage import DRAWS, OnPass, Stage

LIVE, CUT, STORED = 0, 1, 2
"""Attention as it is; its cross-frame part left out; that part taken from storage."""

Modes = Int[Tensor, "k layer head"]
Stored = Mapping[str, Float[Tensor, "b head q dh"]]


def live(stage: Stage) -> Int[Tensor, "layer head"]:
    """The modes of the plain model, to be changed."""
    return torch.full((len(stage.layers), stage.model.geometry.heads), LIVE, device=stage.noise.device)


def through(stage: Stage, layer: int, mode: int, above: int = LIVE) -> Int[Tensor, "layer head"]:
    """One mode in layers 0 to `layer`, another above."""
    modes = live(stage)
    modes[: layer + 1], modes[layer + 1 :] = mode, above
    return modes


@contextmanager
def crossed(stage: Stage, modes: Int[Tensor, "b layer head"], stored: Stored) -> Iterator[OnPass]:
    """The callback for passes in which row b runs by modes[b], with its row of the stored parts."""

    def edit(_at: Any, name: str, call: AttentionCall) -> Tensor:
        mode = modes[:, stage.attention[name], :, None, None]
        replaced = own = mask_other_frames(call)
        if (mode == STORED).any():
            replaced = torch.where(mode == STORED, own + stored[name], own)
        return torch.where(mode == LIVE, call.out, replaced)

    touched = (modes != LIVE).any(dim=2).any(dim=0)
    edits = {name: edit for name, layer in stage.attention.items() if touched[layer]}
    if not edits:
        yield lambda at: None
        return
    with AttentionEdit(stage.model.attn_dict, edits) as instrument:
        yield instrument.on_pass


def drawn(stage: Stage, modes: Modes, stored: Stored, first: int = 0) -> Float[Tensor, "k draw f c h w"]:
    """The frames of each condition, from step `first` of the plain path on."""
    parts = []
    for rows, kept, starting in _batches(stage, modes, stage.path[first], stored):
        with crossed(stage, rows, kept) as on_pass:

            def velocity(x: Tensor, step: int, on_pass: OnPass = on_pass) -> Tensor:
                return stage.velocity(x, stage.sigma(step), step, [on_pass])

            parts.append(stage.drawn(starting, velocity, first))
    return _joined(parts, len(modes))


def drawn_refreshed(stage: Stage, modes: Modes, every: int) -> Float[Tensor, "k draw f c h w"]:
    """The frames of each condition when parts are stored at steps 0, k, 2k, ... and serve until the next."""
    parts = []
    for rows, _, starting in _batches(stage, modes, stage.noise, {}):
        newest: dict[str, Tensor] = {}

        def velocity(x: Tensor, step: int, rows: Tensor = rows, newest: dict = newest) -> Tensor:
            if step % every == 0:
                whole, features = stage.recorded(x, stage.sigma(step), step)
                newest.update(features.cross)
                return whole
            with crossed(stage, rows, newest) as on_pass:
                return stage.velocity(x, stage.sigma(step), step, [on_pass])

        parts.append(stage.drawn(starting, velocity))
    return _joined(parts, len(modes))


def velocities(stage: Stage, modes: Modes, stored: Stored) -> Float[Tensor, "k sigma draw f c h w"]:
    """The velocities of each condition at the true frame, noised to each level of the stage."""
    by_level = []
    for step, sigma in enumerate(stage.levels.tolist()):
        parts = []
        for rows, kept, x in _batches(stage, modes, stage.at_level(sigma), stored):
            with crossed(stage, rows, kept) as on_pass:
                parts.append(stage.velocity(x, sigma, step, [on_pass]))
        by_level.append(_joined(parts, len(modes)))
    return torch.stack(by_level, dim=1)


def _batches(
    stage: Stage, modes: Modes, x: Tensor, stored: Stored
) -> Iterator[tuple[Tensor, Stored, Tensor]]:
    """Modes, stored parts and noisy frames of equally large batches; the last one repeats its last row."""
    size = stage.batch
    kept = {name: part.repeat(size, 1, 1, 1) for name, part in stored.items()}
    for start in range(0, len(modes), size):
        some = modes[start : start + size]
        some = torch.cat([some, some[-1:].expand(size - len(some), -1, -1)])
        yield some.repeat_interleave(DRAWS, dim=0), kept, x.repeat(size, 1, 1, 1, 1)


def _joined(parts: list[Tensor], conditions: int) -> Tensor:
    rows = torch.cat(parts)
    return rows.unflatten(0, (-1, DRAWS))[:conditions]
