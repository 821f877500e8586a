"""What a linear map reads of a state: all that is there, nothing that is not, and of no clip it was shown."""

import numpy as np
import pytest
import tiny
import torch
from sklearn.linear_model import Ridge

from framelens.analyses import state_readout as readout
from framelens.analyses.readout import shuffle_clips
from framelens.analyses.state_readout import state_readout


def classes(*shape, many=4, seed=0):
    return torch.randint(many, shape, generator=torch.Generator().manual_seed(seed)).float()


def one_hot(kinds, many=4):
    return torch.nn.functional.one_hot(kinds[..., 0].long(), many).double()


def test_a_linear_map_is_recovered_and_noise_leaves_what_can_be_known():
    features = tiny.draw(20, 12, 6)
    signal = features @ tiny.draw(6, 2, seed=1)
    assert state_readout(features, signal).min() > 0.999
    noisy = signal + signal.std((0, 1)) * tiny.draw(20, 12, 2, seed=2)
    assert float(state_readout(features, noisy).mean()) == pytest.approx(0.5, abs=0.08)


def test_classes_in_the_features_are_read_without_a_mistake():
    kinds = classes(12, 10, 1)
    features = one_hot(kinds) @ tiny.draw(4, 8, seed=1).double() + 0.01 * tiny.draw(12, 10, 8, seed=2)
    assert (state_readout(features, kinds, classes=4) == 1).all()


@pytest.mark.parametrize("many", [2, 4])
def test_what_the_features_do_not_hold_is_read_at_chance(many):
    scores = [
        state_readout(tiny.draw(24, 6, 16, seed=s), classes(24, 6, 1, many=many, seed=s + 50), many).mean()
        for s in range(12)
    ]
    assert float(np.mean(scores)) == pytest.approx(1 / many, abs=0.03)
    numbers = state_readout(tiny.draw(24, 12, 8), tiny.draw(24, 12, 1, seed=1))
    assert -0.1 < float(numbers.mean()) < 0.05


def test_a_rare_class_counts_as_much_as_a_frequent_one():
    kinds = (torch.arange(200).reshape(10, 20, 1) % 10 == 0).float()  # one in ten
    blind = state_readout(torch.ones(10, 20, 3), kinds, classes=2)
    np.testing.assert_allclose(blind, 0.5)


def test_a_state_that_is_the_same_all_clip_long_is_not_read_by_knowing_the_clip():
    # The features tell the clip, and so its state to whoever saw that clip.
    def scores(seed):
        clip = torch.cat([torch.eye(12)[:, None].expand(12, 8, 12), tiny.draw(12, 8, 6, seed=seed)], -1)
        kinds = classes(12, 1, 1, many=2, seed=seed).expand(12, 8, 1)
        return state_readout(clip, kinds, classes=2).mean(), state_readout(clip, kinds).mean()

    accuracy, r2 = np.mean([scores(seed) for seed in range(8)], axis=0)
    assert accuracy < 0.65 and r2 < 0.1


def left_out(x, y, folds):
    """Of every clip, what the fit without its fold predicts, and that fit's mean; all rows count alike."""
    order = torch.cat(folds)
    counts = torch.tensor([len(fold) * x.shape[1] for fold in folds])[:, None]
    found = readout._left_out(x[order].flatten(0, 1)[None], y[order].flatten(0, 1), counts)
    return [rows[0].unflatten(0, (len(x), -1))[order.argsort()] for rows in found]


def test_a_wild_clip_changes_only_the_scores_of_clips_whose_fit_saw_it():
    features = tiny.draw(10, 6, 3)
    values = features @ tiny.draw(3, 1, seed=1) + tiny.draw(10, 6, 1, seed=2)
    folds = torch.randperm(10, generator=torch.Generator().manual_seed(0)).tensor_split(5)
    x, y = features.double(), values.double()
    wild = y.clone()
    wild[folds[0][0]] *= 50
    before, after = (left_out(x, v, folds)[0] for v in (y, wild))
    same = torch.isclose(before, after).flatten(1).all(1)
    assert same[folds[0]].all() and not same[torch.cat(folds[1:])].any()


def test_no_fit_sees_a_clip_it_is_scored_on():
    features, numbers = tiny.draw(11, 9, 3), tiny.draw(11, 9, 1, seed=1)
    kinds = classes(11, 9, 1, many=3)
    for values, many in ((features @ tiny.draw(3, 1, seed=2) + numbers, 0), (kinds, 3)):
        folds = readout._folds_of_clips(11, torch.device("cpu"))
        clip, counts = folds.argsort(), folds.bincount()[:, None] * 9
        y = (one_hot(values, many) if many else values)[clip].flatten(0, 1).double()
        rows, first = features[clip].flatten(0, 1)[None], 9 * int((folds == 0).sum())
        changed = y.clone()
        changed[:first] = 7
        before, after = (readout._left_out(rows, each, counts)[0][0, :first] for each in (y, changed))
        np.testing.assert_array_equal(before, after)


def moments_of(x, y):
    table = torch.cat([torch.ones(*x.shape[:-1], 1).to(x), x, y], -1).flatten(0, -2)
    return table.mT @ table


def test_the_fit_is_that_of_scikit_learn():
    x, y, alpha = tiny.draw(8, 9, 5).double(), tiny.draw(8, 9, 2, seed=1).double(), 0.1
    weights = readout._fit(moments_of(x, y) / 72, 2, torch.tensor([10.0, alpha]).double())[1]
    rows, targets = x.flatten(0, 1).numpy(), y.flatten(0, 1).numpy()
    scale = rows.std(0)
    theirs = Ridge(alpha=alpha * len(rows)).fit(rows / scale, targets).predict(rows / scale)
    np.testing.assert_allclose(weights[0] + x.flatten(0, 1) @ weights[1:], theirs, atol=1e-9)


def test_a_fit_of_no_row_and_one_that_rounding_makes_impossible_read_zeros():
    none, alphas = torch.zeros(4, 4).double(), torch.tensor([1.0, 1e-4]).double()
    impossible = torch.tensor([[1.0, 0, 0, 0], [0, 1, 3, 1], [0, 3, 1, 1], [0, 1, 1, 1]]).double()
    for moments in (none, impossible):
        assert (readout._fit(moments, 1, alphas) == 0).all()


def test_errors_from_moments_are_those_of_the_predictions():
    x, y = 3 + tiny.draw(8, 9, 5).double(), tiny.draw(8, 9, 3, seed=1).double()
    alphas = torch.tensor(readout.ALPHAS).double()
    weights = readout._fit(moments_of(x[:6], y[:6]) / 54, 3, alphas)
    found = readout._measure_errors(weights[None], moments_of(x[6:], y[6:])[None])[0]
    for each, error in zip(weights, found, strict=True):
        squared = (each[0] + x[6:] @ each[1:] - y[6:]).square().sum()
        np.testing.assert_allclose(error, squared - y[6:].square().sum(), rtol=1e-9)


def test_a_fit_weighs_classes_alike_and_leaves_out_its_folds():
    kinds = torch.tensor([0, 0, 0, 1, 0, 1, 1, 0, 1, 1, 0, 1, 0, 1, 0])
    folds = torch.tensor([0] * 4 + [1] * 3 + [2] * 3 + [3] * 2 + [4] * 3)
    order = (folds * 2 + kinds).argsort()
    table, counts = tiny.draw(1, 15, 3).double(), (folds * 2 + kinds).bincount().reshape(5, 2)
    fits, _ = readout._sum_up(table[:, order], counts, [(0, 2), (1, 1)])
    for fit, left in zip(fits[0], ((0, 2), (1,)), strict=True):
        kept = ~torch.isin(folds, torch.tensor(left))
        rows = [table[0, kept & (kinds == kind)] for kind in (0, 1)]
        np.testing.assert_allclose(fit, sum(each.mT @ each / len(each) / 2 for each in rows))


def test_noise_levels_are_read_apart_and_as_if_each_were_alone():
    features, kinds = tiny.draw(3, 12, 10, 5), classes(12, 10, 1)
    features[1] += 5 * tiny.draw(4, 5, seed=1)[kinds[..., 0].long()]
    features[2, 4, 3, 2] = torch.nan  # a row that does not count at this level alone
    for values, many in ((kinds, 4), (features[0, ..., :2] + tiny.draw(12, 10, 2, seed=2), 0)):
        together = state_readout(features, values, many)
        assert together.shape == (3, 12, 1)
        np.testing.assert_allclose(together[:2], state_readout(features[:2], values, many), atol=1e-12)
        for level, alone in zip(together, features, strict=True):
            np.testing.assert_allclose(level, state_readout(alone, values, many), atol=1e-12)


def test_another_clips_state_cannot_be_read():
    kinds = classes(20, 10, 1)
    features = one_hot(kinds)
    assert state_readout(features, kinds, 4).mean() == 1
    assert state_readout(features, shuffle_clips(kinds), 4).mean() < 0.4


def test_rows_without_a_state_do_not_count_and_clips_without_rows_have_no_score():
    features, kinds = tiny.draw(9, 10, 4), classes(9, 10, 1)
    features = features + 10 * one_hot(kinds)
    kinds[:, 5:] = torch.nan
    kinds[3] = torch.nan
    scores = state_readout(features, kinds, 4)
    assert scores[3].isnan() and (scores[[0, 1, 2, 4, 5, 6, 7, 8]] == 1).all()
    np.testing.assert_allclose(scores, state_readout(features[:, :5], kinds[:, :5], 4))
    assert state_readout(features, torch.full_like(kinds, torch.nan), 4).isnan().all()


def test_parts_are_scored_apart_and_average_to_the_whole():
    kinds = classes(10, 12, 1)
    kinds[:, 6:] = kinds[:, :6]  # so that the classes are as frequent in both parts
    features = one_hot(kinds) + torch.tensor([0.0, 3.0]).repeat_interleave(6)[:, None] * tiny.draw(10, 12, 4)
    parts = state_readout(features, kinds, 4, parts=2)
    assert parts.shape == (10, 2) and parts[:, 0].mean() > parts[:, 1].mean()
    np.testing.assert_allclose(parts.mean(1, keepdim=True), state_readout(features, kinds, 4))


def test_the_mean_over_clips_is_r2_and_neither_knowing_all_nor_nothing_varies_with_the_clip():
    x = tiny.draw(30, 6, 3)
    y = (x @ tiny.draw(3, 1, seed=1) + tiny.draw(30, 6, 1, seed=2)).double()
    y = y * torch.linspace(0.2, 2, 30)[:, None, None]  # clips whose values lie near, and far apart
    folds = torch.randperm(30, generator=torch.Generator().manual_seed(0)).tensor_split(5)
    read, mean = left_out(x.double(), y, folds)
    expected = 1 - (y - read).square().sum() / (y - mean).square().sum()
    assert float(state_readout(x, y).mean()) == pytest.approx(float(expected), abs=1e-6)
    assert state_readout(torch.ones(30, 6, 3), y).abs().max() < 1e-6
    assert (state_readout(y, y) - 1).abs().max() < 1e-3


def test_too_few_clips_are_refused_in_one_line():
    with pytest.raises(ValueError, match=r"\b4 .*\b3\b.*--clips"):
        state_readout(tiny.draw(3, 4, 2), tiny.draw(3, 4, 1))
