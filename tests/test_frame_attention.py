"""Attention by frame lag: patterns whose answer is known give that answer, beside the share of keys."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from bounds import assert_same, rounding

from framelens.analyses.statistics.frame_attention import Statistic

BOUND = rounding(torch.float32, 16, 1, 3.0)
"""Statistics are float32: sums of up to 16 keys, values up to log 16."""


@dataclass(frozen=True)
class At:
    frame: int
    step: int
    sigma: float


@dataclass(frozen=True)
class Rows:
    """A pattern given by its explicit rows [b h q k]."""

    rows: torch.Tensor
    key_age: torch.Tensor | None
    fraction: float = 1.0

    def subsample(self, queries, seed):
        total = self.rows.shape[2]
        if queries is None or queries >= total:
            return self
        chosen = torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:queries]
        return replace(self, rows=self.rows[:, :, chosen], fraction=queries / total)

    def statistics(self):
        lags = torch.nn.functional.one_hot(self.key_age.clamp(min=0)) * (self.key_age >= 0)[:, None]
        return self.rows @ lags.float(), -torch.xlogy(self.rows, self.rows).sum(-1)


def ages(frames, tokens, extra=0):
    """Keys from the oldest frame to the current one, after keys that are not frames."""
    return torch.cat([torch.full((extra,), -1), torch.arange(frames).flip(0).repeat_interleave(tokens)])


def uniform(queries, age, heads=2):
    return Rows(torch.full((1, heads, queries, len(age)), 1 / len(age)), age)


def test_uniform_attention_gives_the_share_of_keys_and_the_log_of_their_number():
    statistic = Statistic()
    for frame in (1, 3):
        statistic.add(At(frame, 0, 1.0), "blocks.3.attn", uniform(4, ages(frame + 1, 4)))
    seen = statistic.result()
    assert seen.mass.dims == ("clip", "frame", "layer", "head", "step", "lag")
    assert (
        seen.sizes["head"] == 2
        and seen.layer.values.tolist() == [3]
        and seen.point.values[0] == "blocks.3.attn"
    )
    assert_same(seen.uniform, [[0.5, 0.5, np.nan, np.nan], [0.25] * 4], bound=BOUND)
    assert_same(seen.mass.isel(clip=0, layer=0, head=0, step=0), seen.uniform, bound=BOUND)
    assert_same(seen.entropy.isel(clip=0, layer=0, head=1, step=0), np.log([8, 16]), bound=BOUND)
    assert_same(seen.uniform_entropy, np.log([8, 16]), bound=BOUND)
    assert_same(seen.cross_mass.isel(clip=0, layer=0, head=0, step=0), [0.5, 0.75], bound=BOUND)
    assert_same(seen.mean_lag.isel(clip=0, layer=0, head=0, step=0), [0.5, 1.5], bound=BOUND)
    assert (seen.mass_stderr == 0).all()


def test_attention_to_one_key_has_its_lag_and_no_entropy():
    age = ages(3, 4)
    rows = torch.zeros(1, 1, 4, 12)
    rows[..., 1] = 1
    statistic = Statistic()
    statistic.add(At(2, 0, 1.0), "blocks.0.attn", Rows(rows, age))
    seen = statistic.result().squeeze()
    assert seen.mass.values.tolist() == [0, 0, 1] and float(seen.mean_lag) == 2 and float(seen.entropy) == 0


def test_keys_that_are_not_frames_take_mass_from_all_lags():
    statistic = Statistic()
    statistic.add(At(1, 0, 1.0), "blocks.0.attn", uniform(4, ages(2, 4, extra=2)))
    seen = statistic.result().squeeze("clip")
    assert_same(seen.mass.sum("lag"), 0.8, bound=BOUND)
    assert_same(seen.uniform, [[0.4, 0.4]], bound=BOUND)
    assert_same(seen.mean_lag, 0.4, bound=BOUND)


def test_a_lag_without_keys_is_missing_not_zero():
    statistic = Statistic()
    statistic.add(At(5, 0, 1.0), "blocks.0.attn", uniform(4, torch.tensor([5, 5, 1, 1, 0, 0])))
    seen = statistic.result().squeeze("clip")
    assert np.isnan(seen.uniform.sel(lag=[2, 3, 4])).all() and np.isnan(seen.mass.sel(lag=[2, 3, 4])).all()
    assert_same(seen.mean_lag, 2, bound=BOUND)


def test_layers_that_see_different_frames_have_a_uniform_share_each():
    statistic = Statistic()
    for layer, seen in enumerate([ages(3, 4), ages(2, 4), ages(1, 4)]):
        statistic.add(At(2, 0, 1.0), f"blocks.{layer}.attn", uniform(4, seen))
    found = statistic.result().squeeze()
    third, half = [1 / 3] * 3, [0.5, 0.5, np.nan]
    assert_same(found.uniform.transpose("layer", "lag"), [third, half, [1, np.nan, np.nan]], bound=BOUND)
    assert_same(found.mass.isel(head=0), found.uniform, bound=BOUND)
    assert_same(found.cross_mass.isel(head=0), [2 / 3, 0.5, 0], bound=BOUND)


def test_layers_that_see_their_own_frame_alone_have_the_share_of_the_others():
    statistic = Statistic()
    for layer, seen in enumerate([ages(1, 4), ages(2, 4), ages(2, 4)]):
        statistic.add(At(1, 0, 1.0), f"blocks.{layer}.attn", uniform(4, seen))
    assert statistic.result().uniform.dims == ("frame", "lag")


def test_the_standard_error_describes_the_scatter_of_subsampled_masses():
    age = ages(2, 32)
    rows = torch.softmax(2 * torch.randn(1, 1, 200, 64, generator=torch.Generator().manual_seed(0)), -1)
    masses, errors = [], []
    for seed in range(60):
        statistic = Statistic(queries=40, seed=seed)
        statistic.add(At(1, 0, 1.0), "blocks.0.attn", Rows(rows, age))
        seen = statistic.result()
        masses.append(float(seen.cross_mass.squeeze()))
        errors.append(float(seen.mass_stderr.squeeze()))
    assert np.mean(masses) == pytest.approx(
        float(rows[..., :32].sum(-1).mean()), abs=4 * np.std(masses) / 60**0.5
    )
    assert np.mean(errors) == pytest.approx(np.std(masses), rel=0.3)


def test_mistakes_are_refused_with_the_remedy():
    statistic = Statistic()
    with pytest.raises(ValueError, match="key_age"):
        statistic.add(At(1, 0, 1.0), "blocks.0.attn", Rows(torch.ones(1, 1, 1, 1), None))
    statistic.add(At(1, 1, 0.5), "blocks.0.attn", uniform(4, ages(2, 4)))
    with pytest.raises(ValueError, match="twice"):
        statistic.add(At(1, 1, 0.5), "blocks.0.attn", uniform(4, ages(2, 4)))
