"""Rows of a call that are of one clip: patterns and edits have the clips, whatever the call looks like."""

from types import SimpleNamespace

import pytest
import torch
from bounds import assert_same
from torch.nn import functional as F

from framelens.hooks import AttentionEdit, AttentionPoint, AttentionTap, Pattern, cut
from framelens.hooks import pattern as pattern_file
from framelens.hooks.fold import merge_rows, split_rows

CLIPS, FOLD, HEADS, QUERIES, KEYS, WIDTH = 2, 5, 3, 2, 6, 8
AGES = torch.tensor([2, 2, 1, 1, 0, 0])


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def inputs():
    q = draw(CLIPS * FOLD, HEADS, QUERIES, WIDTH)
    return q, *draw(2, CLIPS * FOLD, HEADS, KEYS, WIDTH, seed=1)


def pattern_of(row):
    q, k, _ = inputs()
    return Pattern(q[row : row + 1], k[row : row + 1], 0.4, AGES)


def folded():
    q, k, _ = inputs()
    return Pattern(q, k, 0.4, AGES, fold=FOLD)


def by_clip(values):
    """Results [1 h q ...] of all rows as [b h (row q) ...]."""
    rows = [torch.cat(values[clip * FOLD : (clip + 1) * FOLD], dim=2) for clip in range(CLIPS)]
    return torch.cat(rows)


def test_rows_side_by_side_and_apart_are_each_others_inverse():
    x = draw(CLIPS * FOLD, HEADS, QUERIES, WIDTH)
    together = merge_rows(x, FOLD)
    assert together.shape == (CLIPS, HEADS, FOLD * QUERIES, WIDTH)
    assert torch.equal(together[1, :, 2:4], x[FOLD + 1])
    assert torch.equal(split_rows(together, FOLD), x)
    assert merge_rows(x, 1) is x and split_rows(x, 1) is x


@pytest.mark.parametrize("scores", [2**18, 0], ids=["explicit", "fused"])
@pytest.mark.parametrize("answer", ["lag_mass", "entropy", "mean_lag", "log_normaliser"])
def test_a_folded_pattern_is_the_patterns_of_its_rows(answer, scores, monkeypatch):
    monkeypatch.setattr(pattern_file, "EXPLICIT_SCORES", scores)
    whole, rows = folded(), [pattern_of(row) for row in range(CLIPS * FOLD)]
    assert whole.queries == FOLD * QUERIES and whole.keys == KEYS
    expected = by_clip([getattr(row, answer)() for row in rows])
    assert_same(getattr(whole, answer)(), expected)
    parts = zip(*(row.statistics() for row in rows), strict=True)
    for got, wanted in zip(whole.statistics(), parts, strict=True):
        assert_same(got, by_clip(wanted))


def test_rows_and_expectations_of_a_folded_pattern_are_those_of_its_rows():
    _, _, v = inputs()
    rows = [pattern_of(row) for row in range(CLIPS * FOLD)]
    expected = by_clip([row.rows(0, QUERIES) for row in rows])
    assert_same(folded().rows(3, 7), expected[:, :, 3:7])
    expected = by_clip([row.expect(v[place : place + 1]) for place, row in enumerate(rows)])
    assert_same(folded().expect(v), expected)


def test_a_subsample_of_a_folded_pattern_keeps_queries_with_the_keys_of_their_row():
    whole = folded()
    some = whole.subsample(4, seed=3)
    assert some.queries == 4 and some.fraction == 0.4
    order = torch.randperm(FOLD * QUERIES, generator=torch.Generator().manual_seed(3))[:4].sort().values
    for got, wanted in zip(some.statistics(), whole.statistics(), strict=True):
        assert_same(got, wanted[:, :, order])
    assert whole.subsample(FOLD * QUERIES, seed=3) is whole
    again = some.subsample(2, seed=0)
    assert again.queries == 2 and again.fraction == pytest.approx(0.2)


def test_rows_that_do_not_fold_are_refused():
    q, k, _ = inputs()
    with pytest.raises(ValueError, match="10 .* 3"):
        Pattern(q, k, fold=3)


class Along(torch.nn.Module):
    """Attention with a row for each place of each clip."""

    def forward(self, q, k, v):
        return F.scaled_dot_product_attention(q, k, v, scale=0.4)


def watched(instrument_of):
    module = Along()
    points = {"blocks.0.attn": AttentionPoint(module, lambda frame, keys: AGES, fold=FOLD)}
    with instrument_of(points) as instrument:
        instrument.on_pass(SimpleNamespace(frame=2, role="denoise"))
        return module(*inputs())


def test_a_tap_gives_folded_patterns_and_an_edit_that_gives_back_changes_no_bit():
    seen = []
    plain = Along()(*inputs())
    out = watched(lambda points: AttentionTap(points, "*", lambda at, name, p: seen.append(p)))
    assert torch.equal(out, plain) and seen[0].fold == FOLD
    out = watched(lambda points: AttentionEdit(points, {"*": lambda at, name, call: call.out}))
    assert torch.equal(out, plain)


def test_an_edit_is_given_and_gives_clips():
    shapes = []

    def edit(at, name, call):
        shapes.append(tuple(call.out.shape))
        return call.out.flip(0)

    out = watched(lambda points: AttentionEdit(points, {"*": edit}))
    assert shapes == [(CLIPS, HEADS, FOLD * QUERIES, WIDTH)]
    assert torch.equal(out, Along()(*inputs()).unflatten(0, (CLIPS, FOLD)).flip(0).flatten(0, 1))


@pytest.mark.parametrize("heads", [None, [1]])
def test_a_cut_of_folded_attention_is_a_cut_of_each_row(heads):
    q, k, v = inputs()
    own = F.scaled_dot_product_attention(q, k[:, :, 4:], v[:, :, 4:], scale=0.4)
    expected = Along()(q, k, v)
    expected[:, heads or slice(None)] = own[:, heads or slice(None)]
    assert_same(watched(lambda points: cut(points, heads=heads)), expected)
