"""A quick run measures every layer of what the split is read from, and says where it was coarse."""

import re

import numpy as np
import pytest
import tiny

from framelens.analyses.decision.curves import Curves, Cut
from framelens.analyses.decision.split import _coarse
from framelens.diffusion.source import Source
from framelens.probes.experiments import cut, leave_one_out
from framelens.probes.run.probed_clip import Clip, ProbedClip
from framelens.probes.run.settings import Settings

DEPTH = 12


@pytest.mark.slow
def test_reuse_is_coarse_but_cuts_and_left_out_layers_are_not(monkeypatch):
    monkeypatch.setattr(Settings, "chosen_layers", lambda settings, depth: [0, depth - 1])
    clip, network = Clip(tiny.draw(1, 2, 3, 8, 8), None), tiny.model(layers=3)
    network.source = Source()
    settings = Settings(clips=1, frames=2, context=1, probed=1, steps=1, quick=True)
    probed_clip = ProbedClip(0, {"trained": network}, clip, clip, settings, 2)
    cuts = cut.measure(probed_clip)["cut"]
    left_out = leave_one_out.measure(probed_clip)["leave_one_out"]
    for dataset in (cuts, left_out):
        assert dataset.layer.values.tolist() == [0, 1, 2] and probed_clip.layers == [0, 2]
        assert np.isfinite(dataset.velocity_error).all() and np.isfinite(dataset.mse).all()
    assert cuts["where"].values.tolist() == ["from", "only"]


@pytest.mark.parametrize(
    ("depths", "encoder", "said"),
    [
        ([1, 3, 5, 7, 9, 11, 12], 7, r"\b7 .*\b12 .*\b1 "),
        ([4, 8, 12], 8, r"\b3 .*\b12 .*\b3 "),
        ([1, 3, 5, 7, 9, 11, 12], 12, None),
        (list(range(1, 13)), 7, None),
    ],
)
def test_how_much_shallower_an_encoder_may_be_is_said(depths, encoder, said):
    found = Curves(DEPTH, (np.array(depths), {}), None, None)
    remarks = _coarse(found, Cut(encoder, [], list(range(encoder, DEPTH))))
    assert re.search(said, remarks[0]) if said else remarks == []
