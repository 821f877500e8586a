"""Controls of the interventions: some must change the generated frame, some must not.

Must not, to the last bit: the residual stream and attention replaced by their own values. Must: attention to
the own frame only in all layers, another clip's cross-frame part, another clip's features. If a control
fails, the instrument is not attached properly; then no other result of the run can be interpreted.

What another clip's frames change as past, under this clip's conditions and without any instrument, tells a
model that ignores its past, whose frame no control could change, from an instrument that is not attached.
"""

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from framelens.hooks.attention_edit import AttentionEdit
from framelens.hooks.edit import Edit
from framelens.probes.chunk import cross_frame, partial_passes
from framelens.probes.chunk.chunk_probe import DRAWS, ChunkProbe, OnPass
from framelens.probes.chunk.cross_frame import CUT, STORED
from framelens.probes.chunk.measures import Table
from framelens.probes.chunk.stored_features import serve_features
from framelens.probes.run.costs import ChunkUse, Evaluations
from framelens.probes.run.probed_clip import ProbedClip
from framelens.probes.run.shape import RunShape

THRESHOLD = 0.01
"""The least effect of a control that must fire."""
OTHER = "other_frames"


def measure(probed_clip: ProbedClip) -> dict[str, xr.Dataset]:
    """`controls`, (clip, control): effect, must_fire, passed; NaN where a control does not apply. With
    past_effect, (clip): the effect of another clip's frames as past. `other_past`, (clip): the measures of
    the frame and the velocities with that past.
    """
    probe = probed_clip.chunk_probe()
    table = Table(probe, control=list(CONTROLS))
    for name, (generate, must_fire) in CONTROLS.items():
        # In some fusions of a separated model the past does not enter through attention.
        applies = generate not in OF_ATTENTION or has_cross_frame_part(probe)
        effect = _effect(generate(probe), probe.sample) if applies else np.nan
        passed = (effect > THRESHOLD if must_fire else effect == 0) if applies else np.nan
        table.put({"effect": effect, "must_fire": must_fire, "passed": passed}, control=name)
    other, effect = measure_other_past(probe)
    table.put({"past_effect": effect})
    return {"controls": table.dataset().assign_attrs(threshold=THRESHOLD), "other_past": other}


def measure_other_past(probe: ChunkProbe) -> tuple[xr.Dataset, float]:
    """The measures after another clip's frames, at every step, and how much they change the frame."""
    table = Table(probe)
    with probe.remember(OTHER):
        levels = enumerate(probe.levels.tolist())
        velocities = [probe.velocity(probe.at_level(s), s, step, past=OTHER) for step, s in levels]
        drawn = probe.generate(
            probe.noise, lambda x, step: probe.velocity(x, probe.sigma(step), step, past=OTHER)
        )
    table.put_frames(drawn)
    table.put_velocities(torch.stack(velocities))
    return table.dataset(), _effect(drawn, probe.sample)


def evaluations(run: RunShape) -> Evaluations:
    """A frame generated for each control that applies; the last one (features) runs no layer. A frame and
    velocities after another clip's frames, which are encoded."""
    controls = [drawn for drawn, _ in CONTROLS.values() if run.attends_to_past or drawn not in OF_ATTENTION]
    drawn = len(controls) - (other_clip_features in controls)
    use = ChunkUse(features=frozenset({0}), other_past=True)
    passes = drawn * run.steps + run.steps + run.levels
    encoding = run.encoding(run.chunks - 1, 1 if run.batch == 1 else DRAWS)
    return Evaluations(passes * DRAWS * run.layers, encoding, chunk=use)


def kept_bytes(run: RunShape) -> int:
    """Another clip's frames in memory."""
    one = run.batch == 1
    return run.cache_bytes(run.chunks - one, 1 if one else DRAWS)


def has_cross_frame_part(probe: ChunkProbe) -> bool:
    """Whether any key that a denoising pass attends to is of an earlier frame."""
    return probe.features().sees_past


def _effect(drawn: Tensor, plain: Tensor) -> float:
    change = (drawn - plain).square().mean()
    return (change / plain.square().mean()).sqrt().item() if change > 0 else change.item()


def identity_edit(probe: ChunkProbe) -> Tensor:
    """Generated with an Edit that returns every value of the residual stream unchanged."""
    with Edit(probe.model.hook_dict, dict.fromkeys(probe.layers.points, lambda at, name, v: v)) as edit:
        return _generate(probe, edit.on_pass)


def identity_attention(probe: ChunkProbe) -> Tensor:
    """Generated with an AttentionEdit that returns every result unchanged."""
    with AttentionEdit(
        probe.model.attn_dict, dict.fromkeys(probe.attention, lambda at, name, call: call.out)
    ) as edit:
        return _generate(probe, edit.on_pass)


def own_frame_only(probe: ChunkProbe) -> Tensor:
    """Generated with cross-frame attention cut in every layer."""
    with cross_frame.edit_cross_part(probe, _everywhere(probe, CUT), {}) as on_pass:
        return _generate(probe, on_pass)


def other_clip_cross(probe: ChunkProbe) -> Tensor:
    """Generated with the cross-frame part of another clip's attention."""
    stored = probe.features(past="other_clip").cross
    with cross_frame.edit_cross_part(probe, _everywhere(probe, STORED), stored) as on_pass:
        return _generate(probe, on_pass)


def other_clip_features(probe: ChunkProbe) -> Tensor:
    """Generated from another clip's residual stream after the last layer."""
    last, residual = len(probe.layers) - 1, probe.features(past="other_clip").residual
    hard = serve_features(probe, "hard", last, residual)
    return partial_passes.generate(probe, [hard], probe.noise)[0]


CONTROLS = {
    "identity_edit": (identity_edit, False),
    "identity_attention": (identity_attention, False),
    "own_frame_only": (own_frame_only, True),
    "other_clip_cross": (other_clip_cross, True),
    "other_clip_features": (other_clip_features, True),
}
"""How each control generates the frame, and whether it must change it."""
OF_ATTENTION = (own_frame_only, other_clip_cross)


def _everywhere(probe: ChunkProbe, mode: int) -> Tensor:
    modes = cross_frame.through(probe, len(probe.layers) - 1, mode)
    return modes.expand(len(probe.noise), -1, -1)


def _generate(probe: ChunkProbe, on_pass: OnPass) -> Tensor:
    return probe.generate(probe.noise, lambda x, step: probe.velocity(x, probe.sigma(step), step, [on_pass]))
