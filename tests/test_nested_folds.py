"""Folds are a partition of the clips, and a penalty is chosen by fits that have not seen the fold."""

from itertools import combinations

import pytest
import torch

from framelens.analyses.nested_folds import FOLDS, choose_penalties, inverse_spread, split_clips


@pytest.mark.parametrize("clips", [4, 5, 11, 23])
def test_every_clip_is_in_one_fold(clips):
    folds = split_clips(clips, torch.device("cpu"))
    assert len(folds) == min(FOLDS, clips)
    assert sorted(torch.cat(folds).tolist()) == list(range(clips))
    assert all(torch.equal(a, b) for a, b in zip(folds, split_clips(clips, torch.device("cpu")), strict=True))


def test_each_pair_is_fitted_once_and_each_fold_has_the_penalty_best_on_the_others():
    errors = torch.rand(5, 5, 3, generator=torch.Generator().manual_seed(0))  # left out, predicted, penalty
    fitted = []

    def fit(pair):
        fitted.append(pair)
        return pair

    def error(pair, fold):
        (left_out,) = set(pair) - {fold}
        return errors[left_out, fold]

    best = choose_penalties(5, fit, error)
    assert fitted == list(combinations(range(5), 2))
    for fold in range(5):
        others = [other for other in range(5) if other != fold]
        assert best[fold] == int(errors[fold, others].sum(0).argmin())


def test_channels_that_do_not_vary_are_dropped_fit_by_fit():
    spread = torch.tensor([[1.0, 1e-12, 0.0], [1e-12, 2e-12, 0.0]], dtype=torch.float64)
    scale = inverse_spread(spread, 1e-9)
    assert scale.tolist() == [[1.0, 0.0, 0.0], [1 / 1e-12, 1 / 2e-12, 0.0]]
