"""Block norms are root mean squares over tokens, by clip, frame, layer and step."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from framelens.analyses.statistics.block_norms import Statistic


@dataclass(frozen=True)
class At:
    frame: int
    step: int
    sigma: float


def test_norms_are_root_mean_squares_over_tokens():
    statistic = Statistic()
    value = torch.zeros(2, 4, 8)
    value[1, 0, 0], value[1, 1, 3] = 6, 8
    for layer in (0, 3):
        statistic.add(At(2, 0, 1.0), f"decoder.blocks.{layer}.hook_attn_out", torch.full((2, 4, 9), 2.0))
        statistic.add(At(2, 0, 1.0), f"decoder.blocks.{layer}.hook_mlp_out", value)
        statistic.add(At(2, 0, 1.0), f"decoder.blocks.{layer}.hook_resid_post", value.bfloat16())
    seen = statistic.result()
    assert seen.attn_out.dims == ("clip", "frame", "layer", "step")
    np.testing.assert_allclose(seen.attn_out, 6)
    np.testing.assert_allclose(seen.mlp_out.isel(frame=0, step=0), [[0, 0], [5, 5]])
    np.testing.assert_allclose(seen.resid_post, seen.mlp_out)
    assert seen.layer.values.tolist() == [0, 3] and seen.point.values[1] == "decoder.blocks.3"


def test_only_the_points_seen_are_reported():
    statistic = Statistic()
    statistic.add(At(0, 0, 1.0), "blocks.0.hook_mlp_out", torch.ones(1, 4, 9))
    assert list(statistic.result().data_vars) == ["mlp_out"]


def test_other_points_are_refused():
    with pytest.raises(ValueError, match="'blocks.0.hook_resid_pre'"):
        Statistic().add(At(0, 0, 1.0), "blocks.0.hook_resid_pre", torch.ones(1, 4, 9))
