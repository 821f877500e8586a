"""Running moments equal the moments of everything put together."""

import pytest
import torch

from analyses.moments import Mean, Variance


def batches():
    """Different means, sizes and an empty one."""
    draws = torch.Generator().manual_seed(0)
    sizes, means = (3, 0, 1, 7, 2), (0.0, 9.0, 5.0, -40.0, 1000.0)
    return [torch.randn(size, 2, 3, generator=draws) + mean for size, mean in zip(sizes, means, strict=True)]


def test_the_mean_and_variance_are_those_of_the_concatenation():
    mean, variance = Mean(), Variance()
    for batch in batches():
        mean.add(batch)
        variance.add(batch)
    every = torch.cat(batches()).double()
    assert mean.count == variance.count == 13
    torch.testing.assert_close(mean.mean, every.mean(0))
    torch.testing.assert_close(variance.mean, every.mean(0))
    torch.testing.assert_close(variance.variance, every.var(0))


@pytest.mark.parametrize("split", range(6))
def test_merging_equals_adding_everything(split):
    left, right, means = Variance(), Variance(), [Mean(), Mean()]
    for place, batch in enumerate(batches()):
        (left if place < split else right).add(batch)
        means[place >= split].add(batch)
    left.merge(right)
    means[0].merge(means[1])
    every = torch.cat(batches()).double()
    torch.testing.assert_close(left.variance, every.var(0))
    torch.testing.assert_close(left.mean, every.mean(0))
    torch.testing.assert_close(means[0].mean, every.mean(0))
    assert left.count == means[0].count == 13


def test_merging_leaves_the_other_as_it_was():
    left, right = Variance(), Variance()
    left.merge(right)
    right.add(torch.ones(2, 3))
    left.merge(right)
    left.add(torch.zeros(2, 3))
    torch.testing.assert_close(right.variance, torch.zeros(3, dtype=torch.float64))
    torch.testing.assert_close(left.variance, torch.full((3,), 1 / 3, dtype=torch.float64))


def test_a_large_mean_does_not_spoil_a_small_variance():
    values = (torch.arange(1000) % 2).double()[:, None] + 1e8
    variance = Variance()
    for batch in values.split(7):
        variance.add(batch)
    torch.testing.assert_close(variance.variance, values.var(0), rtol=1e-6, atol=0)


def test_nothing_seen_is_not_a_number():
    assert Mean().mean.isnan() and Variance().variance.isnan()
    one = Variance()
    one.add(torch.ones(1, 2))
    assert one.variance.isnan().all()


def test_another_shape_is_refused():
    mean = Mean()
    mean.add(torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"got values of shape \[4\]; expected \[3\]"):
        mean.add(torch.ones(2, 4))
