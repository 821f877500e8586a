"""Cosines of single tokens, which one massive token does not decide."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import cosine_similarity

from framelens.analyses.noise_invariance import compare_tokens
from framelens.analyses.statistics.step_similarity import Statistic
from framelens.analyses.sums.token_cosines import largest_shares, token_cosines, with_median

POINT = "blocks.0.hook_resid_post"
WIDTH = 96
CONDITIONS = {"exact": 100, "sketched": 400}
"""Numbers of tokens that are kept as they are, and of which a sketch is kept."""


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def measured(*maps):
    statistic = Statistic()
    for step, value in enumerate(maps):
        statistic.add(SimpleNamespace(frame=0, step=step, sigma=1 - step / 4), POINT, value[None])
    return statistic.result().isel(clip=0, frame=0, layer=0)


@pytest.mark.parametrize("tokens", [3, 10])
def test_every_measure_follows_its_definition(tokens):
    x = random(2, 3, tokens, 7)
    found = token_cosines(with_median(x))
    for layer, s, t in [(layer, s, t) for layer in range(2) for s in range(3) for t in range(3)]:
        centre = x[layer, s].median(0).values
        one, other = x[layer, s] - centre, x[layer, t] - centre
        each = cosine_similarity(one, other, -1)
        torch.testing.assert_close(found["token_cosine"][layer, s, t].float(), each.mean())
        torch.testing.assert_close(found["token_cosine_median"][layer, s, t].float(), each.median())


@pytest.mark.parametrize("tokens", [1, 2, 5, 64])
def test_the_median_is_that_of_torch_where_a_value_is_no_number_too(tokens):
    x = random(2, 3, tokens, 7)
    assert torch.equal(with_median(x)[..., -1:, :], x.median(-2, keepdim=True).values)
    x[0, 1, 0, 2] = torch.nan
    torch.testing.assert_close(
        with_median(x)[..., -1:, :], x.median(-2, keepdim=True).values, rtol=0, atol=0, equal_nan=True
    )


@pytest.mark.parametrize("size", [30, 3000])
@pytest.mark.parametrize("tokens", CONDITIONS.values(), ids=CONDITIONS)
def test_a_massive_token_does_not_make_independent_tokens_alike(tokens, size):
    massive = torch.zeros(tokens, WIDTH)
    massive[0] = size * random(WIDTH, seed=9)
    found = measured(*(random(tokens, WIDTH, seed=step) + massive for step in range(2)))
    assert found.centred_cosine.values[0, 1] > 0.6
    for name in ("token_cosine", "token_cosine_median"):
        assert abs(found[name].values[0, 1]) < 0.1
    assert (found.token_share > 0.6).all() and (found.channel_share < 0.2).all()


@pytest.mark.parametrize("tokens", CONDITIONS.values(), ids=CONDITIONS)
def test_tokens_that_keep_their_direction_have_a_cosine_near_one(tokens):
    picture = random(tokens, WIDTH)
    found = measured(picture, picture + 0.1 * random(tokens, WIDTH, seed=1))
    for name in ("token_cosine", "token_cosine_median"):
        assert found[name].values[0, 1] == pytest.approx(0.995, abs=0.005)
        assert found[name].values[0, 0] == pytest.approx(1, abs=1e-6)


def test_a_vector_that_all_tokens_share_changes_nothing():
    a, b = random(100, WIDTH), random(100, WIDTH, seed=1)
    shift = 5 * random(WIDTH, seed=2)
    plain, shifted = measured(a, b), measured(a + shift, b + shift)
    assert abs(plain.token_cosine.values - shifted.token_cosine.values).max() < 1e-4


def test_a_massive_channel_has_its_share():
    value = random(2, 50, 20)
    value[..., 3] *= 100
    shares = largest_shares(value)
    assert (shares["channel_share"] > 0.99).all() and (shares["token_share"] < 0.3).all()
    alone = largest_shares(torch.eye(4)[None])
    assert alone["token_share"] == alone["channel_share"] == 0.25


def test_features_without_a_direction_have_no_cosine():
    found = token_cosines(with_median(torch.ones(2, 6, 4)))
    assert all(table.isnan().all() for table in found.values())


def test_two_noise_draws_are_compared_token_by_token():
    massive = torch.zeros(100, WIDTH)
    massive[0] = 300 * random(WIDTH, seed=9)
    a, b = random(100, WIDTH) + massive, random(100, WIDTH, seed=1) + massive
    found = compare_tokens(a, b)
    assert found["centred_cosine"] > 0.9
    assert abs(found["token_cosine"]) < 0.1 and abs(found["token_cosine_median"]) < 0.1
    each = cosine_similarity(a - a.median(0).values, b - b.median(0).values, -1)
    torch.testing.assert_close(found["token_cosine"], each.mean())
    torch.testing.assert_close(found["token_cosine_median"], each.median())
