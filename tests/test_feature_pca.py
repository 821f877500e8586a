"""Principal components of tokens are those of the exact decomposition, in one basis for all kept steps."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from framelens.analyses.statistics.feature_pca import Statistic, principal_components, space_evenly


@dataclass(frozen=True)
class At:
    frame: int
    step: int
    sigma: float


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def planted(rows, width, strengths=(9.0, 4.0, 2.0), seed=0):
    """Rows whose variance is along three known directions, and their scores there."""
    directions = torch.linalg.qr(random(width, 3, seed=seed)).Q
    scores = torch.linalg.qr(random(rows, 3, seed=seed + 1) - random(rows, 3, seed=seed + 1).mean(0)).Q
    scores = scores * torch.tensor(strengths) * rows**0.5
    return (scores @ directions.mT)[None] + 5, scores


@pytest.mark.parametrize("width", [32, 300])
def test_planted_components_are_recovered_up_to_sign(width):
    rows, scores = planted(96, width)
    found, explained = principal_components(rows + 0.01 * random(1, 96, width, seed=7))
    agreement = torch.nn.functional.cosine_similarity(found[0], scores, dim=0).abs()
    torch.testing.assert_close(agreement, torch.ones(3), atol=1e-3, rtol=0)
    torch.testing.assert_close(explained[0], torch.tensor([81.0, 16, 4]) / 101, atol=2e-3, rtol=0)


def test_iterated_components_explain_as_much_as_exact_ones():
    rows = random(1, 500, 300) * torch.linspace(3, 0.2, 300)
    _, explained = principal_components(rows)
    exact = torch.linalg.svdvals((rows[0] - rows[0].mean(0)).double()).square()
    torch.testing.assert_close(explained[0].double(), exact[:3] / exact.sum(), rtol=0.02, atol=0)


def test_the_basis_is_shared_by_all_kept_steps():
    statistic, features = Statistic(steps=(0, 3, 6)), random(2, 16, 8)
    for step in range(7):
        statistic.add(At(0, step, 1 - step / 7), "blocks.0.hook_resid_post", features * (1 + step))
    seen = statistic.result()
    assert seen.components.dims == ("clip", "frame", "layer", "pca_step", "token", "component")
    assert seen.pca_step.values.tolist() == [0, 3, 6] and np.allclose(seen.sigma, [1, 4 / 7, 1 / 7])
    picture = seen.components.isel(frame=0, layer=0)
    np.testing.assert_allclose(np.abs(picture).max(("pca_step", "token")), 1, rtol=1e-5)
    assert (np.abs(picture.sel(pca_step=6)).max("token") > np.abs(picture.sel(pca_step=0)).max("token")).all()
    assert seen.explained.sizes["clip"] == 2 and float(seen.explained.sum("component").max()) <= 1


@pytest.mark.parametrize("steps", [1, 4, 25, 50, 1000])
def test_chosen_steps_are_even_and_few_whatever_their_number(steps):
    chosen = space_evenly(list(range(steps)), 6)
    assert chosen[0] == 0 and chosen[-1] == steps - 1 and len(chosen) == min(6, steps)
    assert np.abs(chosen - np.linspace(0, steps - 1, len(chosen))).max() <= max(1, steps / 25)


def test_chosen_steps_are_kept_as_asked():
    statistic = Statistic(steps=(1, 2))
    for frame in (0, 1):
        for step in range(4):
            statistic.add(
                At(frame, step, 1 - step / 4), "blocks.5.hook_resid_post", random(1, 16, 8, seed=step)
            )
    seen = statistic.result()
    assert seen.pca_step.values.tolist() == [1, 2] and seen.layer.values.tolist() == [5]
    np.testing.assert_allclose(seen.components.sel(frame=0), seen.components.sel(frame=1))


def test_a_frame_without_a_chosen_step_is_refused():
    statistic = Statistic(steps=(1, 2))
    statistic.add(At(0, 1, 0.5), "blocks.5.hook_resid_post", random(1, 16, 8))
    with pytest.raises(ValueError, match=r"blocks.5.hook_resid_post.*\[1\].* 0"):
        statistic.result()


def test_random_numbers_elsewhere_are_not_disturbed():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    principal_components(random(1, 40, 300))
    assert torch.equal(before, torch.get_rng_state())


def test_many_tokens_kept_by_their_leading_directions_look_as_if_kept_whole():
    spectrum = torch.arange(1, 97) ** -0.5
    maps = [random(2, 300, 96, seed=seed) * spectrum @ random(96, 96, seed=9) for seed in (1, 2)]
    seen = {}
    for exact_tokens in (300, 299):
        statistic = Statistic(steps=range(4), exact_tokens=exact_tokens)
        for step in range(4):
            features = (1 - step / 4) * maps[0] + step / 4 * maps[1] + step
            statistic.add(At(0, step, 1 - step / 4), "blocks.0.hook_resid_post", features)
        seen[exact_tokens] = statistic.result()
    whole, reduced = seen[300], seen[299]
    # What a step varies along the others' drift is lost where it is none of its own leading directions.
    np.testing.assert_allclose(reduced.explained, whole.explained, atol=4e-3)
    a, b = (
        each.components.transpose("clip", "component", ...).values.reshape(6, -1) for each in (reduced, whole)
    )
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    np.testing.assert_allclose(cosine, 1, atol=6e-3)
