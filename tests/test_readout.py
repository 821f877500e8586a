"""A linear readout of clips never seen finds a planted map, and nothing where there is nothing."""

import pytest
import torch
from bounds import assert_same

from framelens.analyses.readout import fit_left_out, ridge_readout, shuffle_clips


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_a_planted_linear_map_is_recovered():
    features = random(10, 16, 12) * torch.logspace(-2, 2, 12)
    targets = features @ (random(12, 4, seed=1) / torch.logspace(-2, 2, 12)[:, None]) + random(16, 4, seed=2)
    assert ridge_readout(features, targets).min() > 0.999


def test_noise_leaves_the_share_that_can_be_known():
    features = random(40, 16, 12)
    signal = features @ random(12, 4, seed=1) / 12**0.5
    r2 = ridge_readout(features, signal + random(40, 16, 4, seed=2))
    known = signal.var() / (signal.var() + 1)
    assert float(r2.mean()) == pytest.approx(float(known), abs=0.04)


def test_independent_targets_cannot_be_read():
    r2 = ridge_readout(random(20, 16, 32), random(20, 16, 4, seed=1))
    assert abs(r2.mean()) < 0.02


def test_targets_of_other_clips_cannot_be_read():
    features = random(20, 16, 12)
    targets = features @ random(12, 4, seed=1)
    assert ridge_readout(features, targets).min() > 0.99
    assert ridge_readout(features, shuffle_clips(targets)).mean() < 0.02


def test_the_identity_of_a_clip_cannot_be_read():
    # Within a clip the features give its identity away, so a fit that saw the clip would read it perfectly.
    identity = torch.eye(12)[:, None].expand(12, 16, 12)
    features = torch.cat([identity, random(12, 16, 8)], -1)
    targets = random(12, 1, 4, seed=1).expand(12, 16, 4)
    assert torch.linalg.lstsq(features.flatten(0, 1), targets.flatten(0, 1)).solution.isfinite().all()
    assert ridge_readout(features, targets).mean() < 0.02


def test_what_position_alone_tells_counts_for_nothing():
    position = random(16, 12, seed=1)
    features = position + 0.1 * random(20, 16, 12)
    targets = position @ random(12, 4, seed=2) + 0.1 * random(20, 16, 4, seed=3)
    assert ridge_readout(features, targets).mean() < 0.05


def test_more_channels_than_tokens_and_dead_channels_do_no_harm():
    features = torch.cat([random(8, 4, 60), torch.ones(8, 4, 3)], -1)
    assert ridge_readout(features, features[..., :2]).isfinite().all()


def test_the_fit_of_a_clip_does_not_see_that_clip():
    features, targets = random(9, 4, 6), random(9, 4, 2, seed=1)
    wild = targets.clone()
    wild[3] *= 100
    groups = torch.randperm(9, generator=torch.Generator().manual_seed(0)).tensor_split(5)
    mates = next(group for group in groups if 3 in group)
    before, after = ridge_readout(features, targets), ridge_readout(features, wild)
    for clip in mates.tolist():
        assert (clip == 3) != bool(torch.isclose(before[clip], after[clip]))


def test_every_clip_gets_the_targets_of_another():
    clips = torch.arange(7.0)[:, None]
    for seed in range(5):
        shuffled = shuffle_clips(clips, seed)
        assert (shuffled != clips).all() and torch.equal(shuffled.sort(0).values, clips)


def test_too_few_clips_are_refused():
    with pytest.raises(ValueError, match=r"\b3\b"):
        ridge_readout(random(3, 4, 6), random(3, 4, 2))


def test_the_maps_of_left_out_clips_are_the_regressions_that_are_scored():
    features = random(10, 16, 12)
    targets = features @ random(12, 4, seed=1) + 3 + random(10, 16, 4, seed=2)
    r2, seen = ridge_readout(features, targets), []
    for fit in fit_left_out(features, targets):
        error = (targets[fit.clips] - fit.read(features[fit.clips])).square().sum((1, 2))
        baseline = (targets[fit.clips] - fit.values).square().sum((1, 2))
        assert_same(1 - error / baseline, r2[fit.clips], bound=1e-10)
        others = [clip for clip in range(10) if clip not in fit.clips.tolist()]
        assert_same(fit.tokens, features[others].double().mean(0), bound=1e-10)
        seen += fit.clips.tolist()
    assert sorted(seen) == list(range(10))
