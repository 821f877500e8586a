"""Noise invariance is 1 for equal features, 0 for independent ones, whatever their mean and scale."""

import torch
from bounds import assert_same, rounding

from framelens.analyses.noise_invariance import noise_invariance


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_same_features_agree_whatever_their_mean_token_and_scale():
    features = random(3, 2, 16, 8)
    other = 4 * features + random(3, 2, 1, 8, seed=1)
    assert_same(noise_invariance(features, other), torch.ones(3, 2), bound=rounding(torch.float32, 8, 1))


def test_independent_features_do_not_agree_even_with_a_common_vector():
    a, b = random(8, 64, 64) + 10, random(8, 64, 64, seed=1) + 10
    assert noise_invariance(a, b).abs().max() < 0.06


def test_half_shared_features_agree_by_half():
    shared = random(64, 256)
    agreement = noise_invariance(shared + random(64, 256, seed=1), shared + random(64, 256, seed=2))
    assert abs(float(agreement) - 0.5) < 0.02


def test_tokens_that_are_all_alike_have_no_direction():
    assert noise_invariance(torch.ones(4, 8), random(4, 8)).isnan()
