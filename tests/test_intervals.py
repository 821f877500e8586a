"""Intervals over clips cover the true mean as often as they say, for each entry alone."""

import numpy as np
import pytest

from framelens.analyses.intervals import bootstrap, enough


def test_the_interval_covers_the_true_mean_about_as_often_as_it_says():
    values = np.random.default_rng(1).normal(3, 2, size=(40, 600))
    for confidence, low, high in ((0.95, 0.91, 0.97), (0.8, 0.74, 0.84)):
        interval = bootstrap(values, confidence)
        covered = np.mean((interval.low <= 3) & (interval.high >= 3))
        assert low < covered < high


def test_skewed_values_are_covered_too():
    values = np.random.default_rng(2).exponential(1, size=(60, 600))
    _, low, high = bootstrap(values)
    assert 0.9 < np.mean((low <= 1) & (high >= 1)) < 0.97


def test_the_same_seed_gives_the_same_interval():
    values = np.random.default_rng(0).normal(size=(8, 3, 2))
    first, again, other = bootstrap(values), bootstrap(values), bootstrap(values, seed=1)
    assert first.low.shape == (3, 2)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first.low, other.low)


@pytest.mark.slow
def test_an_entry_does_not_depend_on_its_neighbours():
    values = np.random.default_rng(0).normal(size=(8, 5000))
    np.testing.assert_allclose(np.array(bootstrap(values))[:, 4500], bootstrap(values[:, 4500]), atol=1e-12)


def test_missing_clips_are_left_out():
    values = np.random.default_rng(0).normal(size=(9, 2))
    values[3, 1] = np.nan
    mean, low, high = bootstrap(values)
    assert mean[1] == pytest.approx(np.delete(values[:, 1], 3).mean())
    assert low[1] < mean[1] < high[1]


def test_too_few_clips_have_no_interval():
    one = bootstrap(np.array([[1.0, np.nan]]))
    assert one.mean[0] == 1 and np.isnan(one.mean[1]) and np.isnan(one.low).all() and np.isnan(one.high).all()
    assert [enough(clips) for clips in (0, 4, 5, 50)] == [False, False, True, True]
    with pytest.raises(ValueError, match="0"):
        bootstrap(np.empty((0, 3)))
    with pytest.raises(ValueError, match=r"95\.0"):
        bootstrap(np.ones((5, 3)), confidence=95.0)


def test_equal_clips_have_an_interval_of_no_width():
    np.testing.assert_allclose(bootstrap(np.full((6, 2), 0.3)), 0.3)
