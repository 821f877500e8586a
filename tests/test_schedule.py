"""The grid falls from 1 to 0, quantiles are those of samples, noising ends in the frame and in noise."""

import pytest
import torch
from bounds import assert_same
from tiny import draw

from framelens.diffusion.schedule import Sampling, TrainingDensity, add_noise, shift_levels, sigma_grid


@pytest.mark.parametrize("shift", [0.3, 1.0, 5.0])
@pytest.mark.parametrize("steps", [1, 2, 25])
def test_the_grid_falls_from_noise_to_the_clean_frame(steps, shift):
    grid = sigma_grid(steps, shift)
    assert grid.shape == (steps + 1,) and grid.dtype == torch.float32
    assert (grid[0], grid[-1]) == (1, 0)
    assert (grid.diff() < 0).all()


def test_without_a_shift_the_grid_is_even():
    assert sigma_grid(4).tolist() == [1, 0.75, 0.5, 0.25, 0]


def test_the_shift_is_that_of_the_paper():
    sigma = torch.linspace(0, 1, 11, dtype=torch.float64)
    assert_same(shift_levels(sigma, 3.0), 3 * sigma / (1 + 2 * sigma))
    assert torch.equal(shift_levels(sigma, 1.0), sigma)


def test_a_larger_shift_stays_longer_in_the_noise_and_its_inverse_undoes_it():
    sigma = torch.linspace(0.01, 0.99, 50, dtype=torch.float64)
    assert (shift_levels(sigma, 3.0) > sigma).all() and (shift_levels(sigma, 0.5) < sigma).all()
    assert_same(shift_levels(shift_levels(sigma, 3.0), 1 / 3), sigma)


def test_grids_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match=r"\b1 .*\b0\b"):
        sigma_grid(0)
    for shift in (0, -1.0):
        with pytest.raises(ValueError):
            sigma_grid(5, shift)


def test_a_sampler_walks_its_own_levels_where_it_has_them():
    grid = Sampling(3, 8.0, True, levels=(1.0, 0.757, 0.522)).grid
    assert torch.equal(grid, torch.tensor([1, 0.757, 0.522, 0])) and grid.dtype == torch.float32
    assert torch.equal(Sampling(3, 8.0).grid, sigma_grid(3, 8.0))


@pytest.mark.parametrize("levels", [(), (0.9, 0.5), (1.0, 0.5, 0.0), (1.0, 0.5, 0.5), (1.0, 0.5)])
def test_levels_that_a_sampler_cannot_walk_are_refused(levels):
    with pytest.raises(ValueError) as error:
        Sampling(2 if levels == (0.9, 0.5) else 3, levels=levels)
    assert str(levels) in str(error.value)


def test_a_sampler_is_described_in_plain_values():
    plain = {"steps": 2, "shift": 5.0, "renoise": False}
    assert Sampling(2, 5.0).describe() == plain
    assert Sampling(2, 5.0, levels=(1.0, 0.5)).describe() == plain | {"levels": [1.0, 0.5]}


def test_noising_ends_in_the_clean_frame_and_in_noise():
    clean, noise = draw(2, 3, 3, 4, 4), draw(2, 3, 3, 4, 4, seed=1)
    assert torch.equal(add_noise(clean, noise, torch.zeros(2, 3)), clean)
    assert torch.equal(add_noise(clean, noise, torch.ones(2, 3)), noise)


@pytest.mark.usefixtures("float64")
def test_each_frame_has_its_own_noise_level():
    clean, noise = draw(2, 3, 3, 4, 4), draw(2, 3, 3, 4, 4, seed=1)
    sigma = torch.rand(2, 3, generator=torch.Generator().manual_seed(2))
    mixed = add_noise(clean, noise, sigma)
    for clip in range(2):
        for frame in range(3):
            s = sigma[clip, frame]
            assert_same(mixed[clip, frame], (1 - s) * clean[clip, frame] + s * noise[clip, frame])


def test_the_velocity_is_the_slope_of_noising():
    clean, noise = draw(1, 1, 3, 4, 4).double(), draw(1, 1, 3, 4, 4, seed=1).double()
    low, high = (add_noise(clean, noise, torch.full((1, 1), s, dtype=torch.float64)) for s in (0.3, 0.7))
    assert_same((high - low) / 0.4, noise - clean)


DENSITIES = [
    TrainingDensity(),
    TrainingDensity(uniform_share=0.2),
    TrainingDensity(mean=-1.0, spread=0.5, shift=3.0, uniform_share=0.1),
    TrainingDensity(uniform_share=1.0),
]


@pytest.mark.parametrize("density", DENSITIES)
def test_the_quantiles_of_the_training_density_are_those_of_its_samples(density):
    sample = density.sample((400, 500), torch.Generator().manual_seed(0))
    assert sample.shape == (400, 500) and 0 <= sample.min() and sample.max() <= 1
    middles = (torch.arange(20) + 0.5) / 20
    error = density.quantiles(20) - sample.flatten().sort().values[(middles * sample.numel()).long()]
    assert error.abs().max() < 0.01
    assert (density.quantiles(20).diff() > 0).all()


def test_the_quantiles_of_a_uniform_density_are_known():
    found = TrainingDensity(uniform_share=1.0).quantiles(4)  # on a grid of 20,000 levels
    assert_same(found, torch.tensor([0.125, 0.375, 0.625, 0.875]), bound=1 / 20_000)
    with pytest.raises(ValueError, match=r"\b1\b.*\b0\b"):
        TrainingDensity().quantiles(0)


def test_one_seed_gives_one_sample():
    first, again, other = (
        TrainingDensity(uniform_share=0.5).sample((8,), torch.Generator().manual_seed(seed))
        for seed in (3, 3, 4)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_a_sampler_may_take_more_steps_for_its_first_chunk():
    sampling = Sampling(2, 5.0, True, first_steps=4)
    assert torch.equal(sampling.first_grid, sigma_grid(4, 5.0)) and Sampling(2).first_grid is None
    assert Sampling.from_values(sampling.describe()) == sampling
    for wrong in ({"first_steps": 0}, {"first_steps": 4, "levels": (1.0, 0.5)}):
        with pytest.raises(ValueError, match="first_steps must be at least 1"):
            Sampling(2, **wrong)
