"""Intervals over clips cover what they state, by simulation through the functions that reports use."""

import subprocess
import sys

import numpy as np
import pytest
import xarray as xr

from framelens.analyses.averages import summary
from framelens.analyses.decision.kept import Context
from framelens.analyses.decision.kept import summary as interval
from framelens.analyses.intervals import MeanDraws, describe_intervals, enough, mean_interval
from framelens.analyses.sample import Sample
from framelens.analyses.scales import COSINE, LOG, PLAIN, SCALES, SHARE, scale_of
from framelens.probes.chunk.measures import ABOUT

RUNS = 4000
"""Simulated runs of each case: a coverage of 95 % has a standard error of 0.3 points."""


def beta(a, b):
    return lambda rng, size: rng.beta(a, b, size)


CASES = [
    ("normal", PLAIN, lambda rng, size: rng.normal(3, 2, size), 5, 0.93),
    ("Beta(8, 2)", SHARE, beta(8, 2), 5, 0.93),
    ("Beta(20, 0.5)", SHARE, beta(20, 0.5), 5, 0.93),
    ("Beta(0.5, 20)", SHARE, beta(0.5, 20), 5, 0.93),
    ("cosines", COSINE, lambda rng, size: 2 * rng.beta(20, 0.5, size) - 1, 5, 0.93),
    ("log-normal", LOG, lambda rng, size: rng.lognormal(0, 1, size), 5, 0.93),
]


@pytest.mark.parametrize("clips", [5, 6, 8, 12, 20])
@pytest.mark.parametrize(("name", "scale", "draw", "least", "coverage"), CASES, ids=[c[0] for c in CASES])
def test_the_interval_covers_the_mean_on_the_scale_of_the_measure(name, scale, draw, least, coverage, clips):
    rng = np.random.default_rng(clips)
    true = scale.invert(scale.apply(draw(rng, 400_000)).mean(keepdims=True))[0]
    values = xr.DataArray(draw(rng, (clips, RUNS)), dims=("clip", "run"))
    found = summary(values, scale)
    covered = ((found.low <= true) & (true <= found.high)).mean()
    assert clips >= least and coverage <= covered <= 0.97


def errors(rng, clips, spread):
    """Errors of the whole model, own frame only and an intervention, whose clips differ in difficulty."""
    hard = rng.lognormal(0, spread, clips)
    own, plain, changed = (hard * share * rng.lognormal(0, 0.2, clips) for share in (1.0, 0.4, 0.5))
    return own, plain, changed


def of_errors(own, plain, changed):
    """A run's cut dataset with these errors, and the intervention."""
    values = {"mse": ("clip", changed), "velocity_error": (("clip", "sigma"), changed[:, None])}
    from_first = {name: ((*dims, "where", "layer"), own.reshape(*np.shape(v), 1, 1)) for name, (dims, v) in (
        ("mse", (("clip",), own)), ("velocity_error", (("clip", "sigma"), own[:, None])))}  # fmt: skip
    whole = {
        "plain_mse": ("clip", plain),
        "plain_velocity_error": (("clip", "sigma"), plain[:, None]),
    }
    cut = xr.Dataset(from_first | whole, {"where": ["from"], "layer": [0]})
    return cut, xr.Dataset(values)


@pytest.mark.parametrize("clips", [5, 8, 12])
@pytest.mark.parametrize(("spread", "coverage"), [(0.1, 0.93), (1.0, 0.9)])
def test_the_interval_of_a_kept_share_covers_the_ratio_of_means(spread, coverage, clips):
    rng = np.random.default_rng(clips)
    means = [part.mean() for part in errors(rng, 2_000_000, spread)]
    true, covered = (means[0] - means[2]) / (means[0] - means[1]), 0
    for _ in range(300):
        cut, changed = of_errors(*errors(rng, clips, spread))
        found = interval(Context(cut).kept_share("velocity", changed))
        covered += found.low <= true <= found.high
    assert covered / 300 >= coverage - 0.015, "less two thirds of the standard error of 300 runs"


def test_the_draws_of_one_mean_are_students_and_those_of_two_are_joint():
    values = np.random.default_rng(0).lognormal(size=(6, 3))
    rows = MeanDraws(6).average(values)
    low, high = np.quantile(rows[1:], [0.025, 0.975], axis=0)
    exact = mean_interval(values)
    np.testing.assert_allclose(rows[0], values.mean(0))
    np.testing.assert_allclose(high - low, exact.high - exact.low, rtol=0.08)
    rows = MeanDraws(6).average(np.stack([values[:, 0], 2 * values[:, 0] + 1], 1))
    np.testing.assert_allclose(rows[:, 1], 2 * rows[:, 0] + 1)


def test_the_quantile_of_a_ratio_is_fiellers():
    """Where a - r b has the t interval that ends at 0, r is an end of the interval of the ratio."""
    rng = np.random.default_rng(3)
    below = rng.uniform(1, 2, 7)
    above = 0.6 * below + rng.normal(0, 0.1, 7)
    draws = MeanDraws(7)
    ends = np.quantile((draws.average(above) / draws.average(below))[1:], [0.025, 0.975])
    for end in ends:
        low, mean, high = (getattr(mean_interval(above - end * below), n) for n in ("low", "mean", "high"))
        assert min(abs(low), abs(high)) < 0.08 * (high - low) and abs(mean) > 0


@pytest.mark.parametrize("scale", [PLAIN, LOG, SHARE, COSINE], ids=lambda scale: scale.name)
def test_a_scale_is_monotone_and_has_an_inverse(scale):
    low, high = (max(scale.least, -3), min(scale.greatest, 3)) if scale is not LOG else (1e-6, 3)
    values = np.linspace(low, high, 101)
    assert (np.diff(scale.apply(values)) > 0).all()
    np.testing.assert_allclose(scale.invert(scale.apply(values)), values, atol=1e-12)


def test_values_at_the_edge_of_the_range_have_intervals_inside_it():
    shares = np.array([[1.0, 1, 0, 0], [1, 0.9, 0, 0.1], [1, 0.95, 0, 0], [1, 1, 0, 0.3], [1, 1, 0, 0]])
    for scale, values in ((SHARE, shares), (COSINE, 2 * shares - 1)):
        mean, low, high = mean_interval(values, scale)
        assert (low >= values.min(0) - 0.5).all() and (low >= scale.least).all()
        assert (high <= scale.greatest).all() and (low <= mean).all() and (mean <= high).all()
        np.testing.assert_allclose([mean[0], low[0], high[0]], 1)
        np.testing.assert_allclose([mean[2], low[2], high[2]], scale.least, atol=1e-9)
        assert (low < high)[[1, 3]].all()


def test_an_error_of_exactly_0_gives_the_plain_mean_and_an_interval_from_0_on():
    values = np.array([[0.0, 0, 1], [1, 0, 2], [2, 0, 4], [1, 0, 2], [3, 0, 1]])
    mean, low, high = mean_interval(values, LOG)
    np.testing.assert_allclose(mean[:2], [1.4, 0])
    assert mean[2] == pytest.approx(np.exp(np.log(values[:, 2]).mean()))
    assert (low >= 0).all() and high[0] > mean[0] and (low[1], high[1]) == (0, 0)


@pytest.mark.parametrize(("scale", "value"), [(SHARE, 1.2), (SHARE, -0.1), (COSINE, -1.5), (LOG, -1.0)])
def test_a_value_outside_the_range_is_refused_and_float32_rounding_is_not(scale, value):
    with pytest.raises(ValueError, match=f"{value:g} .*scale {scale.name}"):
        mean_interval(np.array([0.5, value, 0.5]), scale)
    edge = scale.greatest if np.isfinite(scale.greatest) else scale.least
    assert np.isfinite(mean_interval(np.array([0.5, edge + np.sign(edge) * 1e-6, 0.5]), scale).high)


def test_a_measure_without_a_scale_is_refused():
    assert scale_of("centred_cosine") is COSINE and scale_of("cross_mass") is SHARE
    with pytest.raises(ValueError, match="'sine'.*cosine"):
        scale_of("sine")
    assert set(SCALES.values()) == {PLAIN, LOG, SHARE, COSINE}


def test_an_entry_does_not_depend_on_its_neighbours():
    values = np.random.default_rng(0).random(size=(8, 5000))
    for scale in (PLAIN, SHARE, LOG):
        whole = np.array(mean_interval(values, scale))
        np.testing.assert_allclose(whole[:, 4500], mean_interval(values[:, 4500], scale), atol=1e-12)


def test_missing_clips_are_left_out():
    values = np.random.default_rng(0).normal(size=(9, 2))
    values[3, 1] = np.nan
    found = np.array(mean_interval(values))[:, 1]
    np.testing.assert_allclose(found, mean_interval(np.delete(values[:, 1], 3)))
    assert found[1] < found[0] < found[2]


def test_too_few_clips_have_no_interval():
    one = mean_interval(np.array([[1.0, np.nan]]))
    assert one.mean[0] == 1 and np.isnan(one.mean[1]) and np.isnan(one.low).all() and np.isnan(one.high).all()
    assert [enough(clips) for clips in (0, 4, 5, 50)] == [False, False, True, True]
    assert np.isnan(summary(xr.DataArray(np.ones(4), dims="clip")).low)
    with pytest.raises(ValueError, match="0 clips"):
        mean_interval(np.empty((0, 3)))
    with pytest.raises(ValueError, match="confidence 95.0"):
        mean_interval(np.ones((5, 3)), confidence=95.0)


def test_equal_clips_have_an_interval_of_no_width():
    for scale in (PLAIN, LOG, SHARE, COSINE):
        np.testing.assert_allclose(mean_interval(np.full((6, 2), 0.3), scale), 0.3)


def test_the_sentence_on_intervals_has_the_clips_and_the_method():
    assert "over 8 clips:" in describe_intervals(Sample(8)) and "Student" in describe_intervals(Sample(8))
    assert "3 clips" in describe_intervals(Sample(3)) and "Student" not in describe_intervals(Sample(3))
    assert "over 6 films " in describe_intervals(Sample(12, 6))
    assert describe_intervals(Sample(12, 3)) == "3 films, 12 clips: too few for an interval."


def test_reading_intervals_does_not_import_torch():
    check = "import sys\nfrom framelens.analyses import intervals, statistics\nstatistics.names()"
    check += "\nsys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], timeout=60).returncode == 0


def test_every_measure_of_an_intervention_has_a_scale():
    flags = {"must_fire", "passed"}
    assert all(scale_of(name) for name in ABOUT.keys() - flags)
    with pytest.raises(ValueError, match="'newcomer'.*mse"):
        scale_of("newcomer")
