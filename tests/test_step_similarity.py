"""Similarity between steps: features whose answer is known give it, and sketches come near it."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from bounds import assert_same, rounding

from framelens.analyses.points import layer_of
from framelens.analyses.statistics import load, names
from framelens.analyses.statistics.step_similarity import Statistic

POINT = "blocks.2.hook_resid_post"
BOUND = rounding(torch.float32, 64, 1)
"""Of values up to 1 in float32: tokens of up to 64 channels are centred there, the rest is float64."""


@dataclass(frozen=True)
class At:
    frame: int
    step: int
    sigma: float


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def measure(*steps, **settings):
    statistic = Statistic(**settings)
    for step, features in enumerate(steps):
        statistic.add(At(0, step, 1 - step / len(steps)), POINT, features)
    return statistic.result().sel(frame=0).isel(clip=0, layer=0)


def trajectory(steps, tokens, width, outliers=False):
    """A smooth path from noise to a low-rank picture, with a common vector and optional massive channels."""
    picture = random(tokens, 8, seed=1) @ random(8, width, seed=2) / 8**0.5 + 3 * random(width, seed=3)
    noise = random(tokens, width, seed=4)
    if outliers:
        picture[:, :2] *= 40
        picture[:15] *= 10
    sigmas = np.linspace(0.95, 0.05, steps)
    return [
        ((1 - s) * picture + s * noise + 0.2 * random(tokens, width, seed=5 + i))[None]
        for i, s in enumerate(sigmas)
    ]


def test_identical_steps_are_perfectly_similar():
    features = random(1, 16, 32)
    seen = measure(features, features)
    for name in ("cosine", "centred_cosine", "cka"):
        assert_same(seen[name], np.ones((2, 2)), bound=BOUND)
    np.testing.assert_array_equal(seen.relative_l2, 0)


def test_orthogonal_steps_have_zero_cosine():
    a, b = torch.zeros(1, 16, 8), torch.zeros(1, 16, 8)
    a[..., :4], b[..., 4:] = random(16, 4), random(16, 4, seed=1)
    assert abs(measure(a, b).cosine.values[0, 1]) < BOUND


def test_a_common_vector_raises_the_cosine_but_not_the_centred_cosine():
    a, b = (f - f.mean(1, keepdim=True) for f in (random(1, 16, 32), random(1, 16, 32, seed=1)))
    plain, shifted = measure(a, b), measure(a + 3, b + 3)
    assert abs(plain.cosine.values[0, 1]) < 0.15 and shifted.cosine.values[0, 1] > 0.85
    assert_same(shifted.centred_cosine, plain.centred_cosine, bound=4 * BOUND)
    squares = np.array([a.square().mean(), b.square().mean()])
    assert_same(shifted.common_mode, np.sqrt(9 / (9 + squares)), bound=BOUND)


def test_every_measure_follows_its_definition():
    a, b = random(16, 32) + 1, random(16, 32, seed=1) - random(32, seed=2)
    seen = measure(a[None], b[None])
    cosine = torch.nn.functional.cosine_similarity
    a, b = a.double(), b.double()
    for i, j, x, y in ((0, 1, a, b), (1, 0, b, a)):
        assert seen.cosine.values[i, j] == pytest.approx(
            float(cosine(x.flatten(), y.flatten(), 0)), abs=BOUND
        )
        centred = cosine((x - x.mean(0)).flatten(), (y - x.mean(0)).flatten(), 0)
        assert seen.centred_cosine.values[i, j] == pytest.approx(float(centred), abs=BOUND)
        assert seen.relative_l2.values[i, j] == pytest.approx(float((x - y).norm() / x.norm()), rel=BOUND)
        assert seen.cka.values[i, j] == pytest.approx(unbiased_cka(x, y), abs=4 * BOUND)
        assert seen.common_mode.values[i] == pytest.approx(
            float(x.mean(0).norm() / x.square().sum(1).mean().sqrt()), abs=BOUND
        )


def unbiased_cka(x, y):
    """Song et al. 2012, eq. 5, as written there: kernels of uncentred tokens, diagonal set to zero."""

    def hsic(x, y):
        K, L = (f.double() @ f.double().mT for f in (x, y))
        n = len(K)
        K, L = (k - torch.diag(k.diagonal()) for k in (K, L))
        pairs = K.sum() * L.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * (K @ L).sum()
        return ((K * L).sum() + pairs) / (n * (n - 3))

    return float(hsic(x, y) / (hsic(x, x) * hsic(y, y)).sqrt())


def test_scaling_a_step_changes_distances_only():
    a, b = random(1, 16, 32), random(1, 16, 32, seed=1)
    plain, scaled = measure(a, b), measure(a, 5 * b)
    assert_same(scaled.cosine, plain.cosine, bound=BOUND)
    assert_same(scaled.cka, plain.cka, bound=BOUND)
    assert measure(a, 5 * a).relative_l2.values[0, 1] == pytest.approx(4, rel=BOUND)


def test_tiny_distances_survive_a_large_common_vector():
    a = random(1, 16, 32) + 1000
    b = a.clone()
    b[0, 0, 0] += 1
    assert measure(a, b).relative_l2.values[0, 1] == pytest.approx(float(1 / a.norm()), rel=1e-3)


def test_cka_ignores_rotation_and_scale_and_is_zero_for_independent_tokens():
    a = random(1, 200, 8)
    rotation = torch.linalg.qr(random(8, 8, seed=1)).Q
    assert measure(a, 3 * a @ rotation + 1).cka.values[0, 1] == pytest.approx(1, abs=4 * BOUND)
    independent = [measure(a, random(1, 200, 8, seed=s)).cka.values[0, 1] for s in range(2, 12)]
    assert abs(np.mean(independent)) < 0.01 and np.max(np.abs(independent)) < 0.05


def test_cka_of_three_tokens_is_not_a_number():
    assert np.isnan(measure(random(1, 3, 8), random(1, 3, 8, seed=1)).cka).all()


@pytest.mark.parametrize("outliers", [False, True])
def test_sketches_are_as_close_as_theory_allows(outliers):
    steps = trajectory(8, 400, 48, outliers)
    exact, sketched = measure(*steps, exact_tokens=400), measure(*steps)
    for name in ("cosine", "centred_cosine"):
        # One standard error of a CountSketch of M buckets is (1 - cosine²) / sqrt(M).
        error = np.abs(sketched[name] - exact[name])
        assert (error < 4 * (1 - exact[name] ** 2) / 16383**0.5 + 1e-5).all(), name
    error = (sketched.cka - exact.cka).values
    assert np.sqrt((error**2).mean()) < 0.016 and np.abs(error).max() < 0.045
    assert_same(sketched.common_mode, exact.common_mode, bound=BOUND)
    np.testing.assert_allclose(sketched.relative_l2, exact.relative_l2, rtol=0.03)


def test_the_error_of_a_sketched_cosine_shrinks_where_steps_are_alike():
    a, noise = random(1, 300, 64), random(1, 300, 64, seed=1)
    for share in (0.0, 0.9, 0.999):
        b = share * a + (1 - share**2) ** 0.5 * noise
        exact = measure(a, b, exact_tokens=300).centred_cosine.values[0, 1]
        errors = [measure(a, b, seed=seed).centred_cosine.values[0, 1] - exact for seed in range(20)]
        assert np.sqrt(np.mean(np.square(errors))) < 1.5 * (1 - share**2) / 16383**0.5


def test_a_sketch_of_identical_steps_is_still_exact():
    features = random(1, 300, 40)
    seen = measure(features, features)
    assert_same([seen.cosine, seen.centred_cosine, seen.cka], np.ones((3, 2, 2)), bound=BOUND)


def test_clips_frames_layers_and_steps_stay_apart():
    statistic, values = Statistic(), {}
    points = [
        "hook_embed",
        "blocks.0.hook_resid_post",
        "blocks.10.hook_resid_post",
        "blocks.2.hook_resid_post",
    ]
    for frame in (3, 5):
        for step in range(3):
            for place, point in enumerate(points):
                values[frame, step, point] = random(2, 6, 4, seed=100 * frame + 10 * step + place)
                statistic.add(At(frame, step, 1 - step / 3), point, values[frame, step, point])
    seen = statistic.result()
    assert dict(seen.sizes) == {"clip": 2, "frame": 2, "layer": 4, "step": 3, "step_b": 3}
    assert (
        seen.layer.values.tolist() == [-1, 0, 2, 10] and seen.point.values[3] == "blocks.10.hook_resid_post"
    )
    np.testing.assert_allclose(seen.sigma, [1, 2 / 3, 1 / 3])
    a, b = values[5, 2, points[2]][1], values[5, 0, points[2]][1]
    got = seen.cosine.isel(clip=1).sel(frame=5, layer=10, step=2, step_b=0)
    assert float(got) == pytest.approx(float((a * b).sum() / a.norm() / b.norm()), abs=BOUND)
    assert all(
        {"units", "long_name", "source"} <= set(v.attrs) and v.dtype == np.float32 for v in seen.values()
    )


def test_features_go_when_the_next_frame_begins_and_are_copies():
    statistic, features = Statistic(), random(1, 4, 8)
    statistic.add(At(0, 0, 1.0), POINT, features)
    features.zero_()
    statistic.add(At(1, 0, 1.0), POINT, random(1, 4, 8))
    assert [len(kept) for kept in statistic._kept.values()] == [1]
    assert np.isfinite(statistic.result().cosine).all()


def test_asking_twice_gives_the_same_result():
    statistic = Statistic()
    statistic.add(At(0, 0, 1.0), POINT, random(1, 4, 8))
    assert statistic.result().identical(statistic.result())


def test_mistakes_are_refused_with_the_remedy():
    statistic = Statistic()
    with pytest.raises(ValueError):
        statistic.result()
    statistic.add(At(0, 0, 1.0), POINT, random(1, 4, 8))
    with pytest.raises(ValueError):
        statistic.add(At(0, 0, 1.0), POINT, random(1, 4, 8))
    with pytest.raises(ValueError):
        statistic.add(At(1, 0, 0.9), POINT, random(1, 4, 8))
    other = Statistic()
    other.add(At(0, 0, 1.0), POINT, random(1, 4, 8))
    other.add(At(0, 1, 0.5), "hook_embed", random(1, 4, 8))
    with pytest.raises(ValueError):
        other.result()


def test_layers_are_read_from_hook_names():
    read = {
        "hook_embed": -1,
        "blocks.3.hook_resid_post": 3,
        "decoder.blocks.11.attn": 11,
        "encoder.hook_embed": -1,
    }
    assert {name: layer_of(name) for name in read} == read
    for wrong in ("layers.3.hook_resid_post", "hook_embedding", "blocks.x.attn"):
        with pytest.raises(ValueError):
            layer_of(wrong)


def test_statistics_are_listed_by_file_and_loaded_by_name():
    assert {"block_norms", "feature_pca", "frame_attention", "step_similarity"} <= set(names())
    assert not {"intervals", "readout", "noise_invariance"} & set(names())
    for name in names():
        assert hasattr(load(name).Statistic, "add") and load(name).reads
    with pytest.raises(ValueError, match="'similarity'.*step_similarity"):
        load("similarity")
