"""CountSketches are unbiased for the products that they estimate, also with one massive channel."""

import numpy as np
import pytest
import torch
from bounds import assert_same, rounding

from framelens.analyses.sums.sketch import CountSketch, kept_pairs


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("width", [40, 127, 128, 262])
def test_one_massive_channel_does_not_spoil_the_sketch(width):
    a, b = random(1, 600, width), random(1, 600, width, seed=1)
    a[..., 0] *= 100
    b[..., 0] *= 100
    exact = torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), 0)
    errors = []
    for seed in range(30):
        sketch = CountSketch(600, width, seed=seed)
        x, y = (sketch(f, torch.zeros(1, width))[0][0] for f in (a, b))
        errors.append(float(torch.nn.functional.cosine_similarity(x, y, 0) - exact))
    assert np.sqrt(np.mean(np.square(errors))) < 1.5 / 16383**0.5


@pytest.mark.parametrize(("tokens", "width"), [(300, 40), (513, 37), (1024, 16)])
def test_sketched_products_are_unbiased(tokens, width):
    a = random(1, tokens, width)
    b = 0.5 * a + random(1, tokens, width, seed=1)
    none = torch.zeros(1, width)
    flat, kernels = [], []
    for seed in range(30):
        sketch = CountSketch(tokens, width, seed=seed)
        (x, K, squares), (y, L, _) = sketch(a, none), sketch(b, none)
        flat.append((x * y).sum())
        kernels.append(2 * (K * L).sum() / kept_pairs(tokens))
    exact = a.double().square().sum(-1)
    assert_same(squares, exact, bound=rounding(torch.float32, width, 1, exact))
    assert abs(torch.stack(flat).mean() / (a * b).sum() - 1) < 0.01
    K, L, kernels = a[0] @ a[0].T, b[0] @ b[0].T, torch.stack(kernels)
    truth = (K * L).sum() - (K.diagonal() * L.diagonal()).sum()
    assert abs(kernels.mean() / truth - 1) < 4 * kernels.std() / truth / 30**0.5 + 1e-3


@pytest.mark.parametrize("batch", [1, 3])
def test_a_sketch_depends_on_its_features_alone(batch):
    features, mean = random(batch, 300, 40), random(batch, 40, seed=1)
    used = CountSketch(300, 40)
    used(random(batch, 300, 40, seed=2), mean)
    for got, fresh in zip(used(features, mean), CountSketch(300, 40)(features, mean), strict=True):
        assert torch.equal(got, fresh)
    each = [CountSketch(300, 40)(f[None], m[None])[0] for f, m in zip(features, mean, strict=True)]
    expected = torch.cat(each)
    assert_same(used(features, mean)[0], expected, bound=rounding(torch.float32, 300, 1, expected))
