"""What interventions have to show of their own instruments: some must change the frame, some must not.

Must not, to the last bit: the residual stream and attention replaced by what they are. Must: attention to the
own frame only in all layers, another clip's cross-frame part, another clip's features. A control that fails
says that the instrument is not wired in, or that the model does not use its past; nothing else in such a run
can be read.
"""

import numpy as np
import xarray as xr
from torch import Tensor

from framelens.hooks.attention_edit import AttentionEdit
from framelens.hooks.edit import Edit
from framelens.probes.chunk import cross_frame, stored_features
from framelens.probes.chunk.cross_frame import CUT, STORED
from framelens.probes.chunk.measures import Table
from framelens.probes.chunk.stage import DRAWS, OnPass, Stage
from framelens.probes.run.costs import ChunkUse, Evaluations
from framelens.probes.run.shape import RunShape
from framelens.probes.run.subject import Subject

THRESHOLD = 0.01
"""The least effect of a control that must fire."""


def measure(subject: Subject) -> dict[str, xr.Dataset]:
    """`controls`, (clip, control): effect, must_fire, passed; NaN where a control does not apply."""
    stage = subject.stage()
    table = Table(stage, control=list(CONTROLS))
    for name, (drawn, must_fire) in CONTROLS.items():
        # Where the past does not come in by attention, as in some fusions of a separated model.
        applies = drawn not in OF_ATTENTION or has_cross_frame_part(stage)
        effect = _effect(drawn(stage), stage.sample) if applies else np.nan
        passed = (effect > THRESHOLD if must_fire else effect == 0) if applies else np.nan
        table.put({"effect": effect, "must_fire": must_fire, "passed": passed}, control=name)
    return {"controls": table.dataset().assign_attrs(threshold=THRESHOLD)}


def evaluations(run: RunShape) -> Evaluations:
    """A frame drawn for each control that applies; the features of the last one pass over every layer."""
    controls = [drawn for drawn, _ in CONTROLS.values() if run.attends_to_past or drawn not in OF_ATTENTION]
    drawn = len(controls) - (other_clip_features in controls)
    use = ChunkUse(velocities=False, features=frozenset({0}), other_past=True)
    return Evaluations(drawn * run.steps * DRAWS * run.layers, chunk=use)


def has_cross_frame_part(stage: Stage) -> bool:
    """Whether any key that a denoising pass attends to is of an earlier frame."""
    return any(part.any() for part in stage.features().cross.values())


def _effect(drawn: Tensor, plain: Tensor) -> float:
    return ((drawn - plain).square().mean() / plain.square().mean()).sqrt().item()


def identity_edit(stage: Stage) -> Tensor:
    """Drawn under an Edit that gives every value on the residual stream back."""
    with Edit(stage.model.hook_dict, dict.fromkeys(stage.layers.points, lambda at, name, v: v)) as edit:
        return _drawn(stage, edit.on_pass)


def identity_attention(stage: Stage) -> Tensor:
    """Drawn under an AttentionEdit that gives every result back."""
    with AttentionEdit(
        stage.model.attn_dict, dict.fromkeys(stage.attention, lambda at, name, call: call.out)
    ) as edit:
        return _drawn(stage, edit.on_pass)


def own_frame_only(stage: Stage) -> Tensor:
    """Drawn with cross-frame attention cut in every layer."""
    with cross_frame.crossed(stage, _everywhere(stage, CUT), {}) as on_pass:
        return _drawn(stage, on_pass)


def other_clip_cross(stage: Stage) -> Tensor:
    """Drawn with the cross-frame part of another clip's attention."""
    stored = stage.features(past="other_clip").cross
    with cross_frame.crossed(stage, _everywhere(stage, STORED), stored) as on_pass:
        return _drawn(stage, on_pass)


def other_clip_features(stage: Stage) -> Tensor:
    """Drawn from another clip's residual stream behind the last layer."""
    last = len(stage.layers) - 1
    return stored_features.drawn(stage, last, stage.features(past="other_clip"), first=0)["hard"]


CONTROLS = {
    "identity_edit": (identity_edit, False),
    "identity_attention": (identity_attention, False),
    "own_frame_only": (own_frame_only, True),
    "other_clip_cross": (other_clip_cross, True),
    "other_clip_features": (other_clip_features, True),
}
"""How each control draws, and whether it must change the frame."""
OF_ATTENTION = (own_frame_only, other_clip_cross)


def _everywhere(stage: Stage, mode: int) -> Tensor:
    modes = cross_frame.through(stage, len(stage.layers) - 1, mode)
    return modes.expand(len(stage.noise), -1, -1)


def _drawn(stage: Stage, on_pass: OnPass) -> Tensor:
    return stage.drawn(stage.noise, lambda x, step: stage.velocity(x, stage.sigma(step), step, [on_pass]))
