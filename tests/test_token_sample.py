"""Part of the tokens: spread evenly, the same for a seed, and the error reported is the error made."""

from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch
import xarray as xr

from framelens.analyses import noise_invariance
from framelens.analyses.statistics import feature_pca, step_similarity
from framelens.analyses.sums.token_sample import STDERR, Sampled, half_difference, spread_tokens
from framelens.probes.__main__ import main
from framelens.probes.experiments import noise_invariance as experiment
from framelens.probes.run.settings import Settings

TOKENS, WIDTH, STEPS = 192, 12, 3


def features(seed=0):
    """Maps [step, 1, n, d] of three steps that drift apart, smooth over neighbours, as frames are."""
    noise = tiny.draw(STEPS, TOKENS, WIDTH, seed=seed).cumsum(1)
    common = tiny.draw(1, TOKENS, WIDTH, seed=seed + 1).cumsum(1) * 2
    return (common + noise * torch.tensor([0.3, 0.6, 1.0])[:, None, None])[:, None]


def measured(statistic, maps):
    for step, value in enumerate(maps):
        at = SimpleNamespace(frame=0, step=step, sigma=1 - step / STEPS)
        statistic.add(at, "blocks.0.hook_resid_post", value)
    return statistic.result()


def test_tokens_are_spread_evenly_and_follow_from_the_seed():
    chosen = spread_tokens(1560, 256, seed=3)
    assert len(chosen) == 256 == len(set(chosen.tolist())) and (chosen.diff() > 0).all()
    assert chosen.diff().max() <= 2 * 7 and chosen.min() < 7 and chosen.max() >= 1560 - 7
    assert torch.equal(chosen, spread_tokens(1560, 256, seed=3))
    assert not torch.equal(chosen, spread_tokens(1560, 256, seed=4))
    for count in (None, 10, 12):
        assert torch.equal(spread_tokens(10, count), torch.arange(10))


def test_a_sample_of_all_tokens_is_the_statistic_itself():
    maps = features()
    whole = measured(step_similarity.Statistic(), maps)
    xr.testing.assert_identical(measured(Sampled(step_similarity.Statistic, TOKENS), maps), whole)


@pytest.mark.parametrize("order", [(24, 48), (48, 24)])
def test_points_of_different_sizes_are_refused_at_once_where_one_is_sampled(order):
    def add(statistic, tokens, point):
        at = SimpleNamespace(frame=0, step=0, sigma=1.0)
        statistic.add(at, point, tiny.draw(1, tokens, WIDTH))

    for count in (30, 50):
        statistic = Sampled(step_similarity.Statistic, count)
        add(statistic, order[0], "hook_embed")
        if count == 50:
            add(statistic, order[1], "blocks.0.hook_resid_post")
            assert set(statistic.result().point.values) == {"hook_embed", "blocks.0.hook_resid_post"}
        else:
            with pytest.raises(ValueError, match=f"blocks.0.hook_resid_post has {order[1]} .* {order[0]}"):
                add(statistic, order[1], "blocks.0.hook_resid_post")


def test_the_error_of_the_sampled_similarity_is_the_one_reported():
    made, stated = [], []
    for seed in range(40):
        maps = features(10 * seed)
        whole = measured(step_similarity.Statistic(), maps)
        part = measured(Sampled(step_similarity.Statistic, 48, seed), maps)
        made.append(part.centred_cosine.values[0, 0, 0, 0, 1:] - whole.centred_cosine.values[0, 0, 0, 0, 1:])
        stated.append(part[f"centred_cosine{STDERR}"].values[0, 0, 0, 0, 1:])
        assert set(part.data_vars) == set(whole.data_vars) | {f"{name}{STDERR}" for name in whole.data_vars}
    made, stated = (float(np.sqrt(np.mean(np.square(values)))) for values in (made, stated))
    assert made > 1e-4, "there was no error to estimate"
    assert 0.5 < stated / made < 2.5, f"{made} was made, {stated} stated"


def test_the_error_of_the_noise_invariance_is_the_one_reported():
    made, stated = [], []
    for seed in range(100):
        a, b, _ = features(10 * seed)[:, 0]
        chosen = spread_tokens(TOKENS, 48, seed)
        of = [noise_invariance.noise_invariance(a[some], b[some]) for some in (chosen[::2], chosen[1::2])]
        whole, part = (noise_invariance.noise_invariance(a[s], b[s]) for s in (slice(None), chosen))
        made.append(float(part - whole))
        stated.append(float(half_difference(*of, 48 / TOKENS)))
    made, stated = (float(np.sqrt(np.mean(np.square(values)))) for values in (made, stated))
    assert made > 1e-4 and 0.5 < stated / made < 2.5


def test_watched_steps_are_spread_with_the_first_and_the_last():
    assert Settings(steps=50, stats_steps=5).watched_steps == [0, 12, 24, 37, 49]
    assert Settings(steps=4).watched_steps == Settings(steps=4, stats_steps=9).watched_steps == [0, 1, 2, 3]
    assert Settings(steps=1).watched_steps == [0]
    assert feature_pca.for_run(Settings(steps=50, stats_steps=5)).steps == [0, 12, 24, 37, 49]
    for wrong in ({"stats_steps": 1}, {"tokens": 7}):
        with pytest.raises(ValueError, match="--(stats-steps|tokens) must be at least"):
            Settings(**wrong)


@pytest.mark.slow
def test_a_run_on_part_of_tokens_and_steps_says_its_error(tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "SIGMAS", (1.0,))
    path = tiny.checkpoint(tmp_path / "tiny.safetensors")
    words = "--clips 1 --steps 5 --frames 3 --context 1 --probed 1 --workers 1 --experiments rollouts "
    words += "noise_invariance --statistics step_similarity block_norms --run a"
    for name, more in {"whole": [], "part": "--tokens 12 --stats-steps 3".split()}.items():
        assert main(["--model", str(path), "--out", str(tmp_path / name), *words.split(), *more]) == 0
    whole, part = (
        {file.stem: xr.load_dataset(file) for file in (tmp_path / name / "tiny" / "a").glob("*.nc")}
        for name in ("whole", "part")
    )
    assert part["block_norms"].step.values.tolist() == [0, 2, 4]
    norms = whole["block_norms"].sel(step=[0, 2, 4])
    xr.testing.assert_equal(part["block_norms"], norms)
    similarity = part["step_similarity"]
    assert similarity.cosine.dims == similarity.cosine_stderr.dims and similarity.step.size == 3
    shift = similarity.cosine - whole["step_similarity"].cosine.sel(step=[0, 2, 4], step_b=[0, 2, 4])
    assert 0 < abs(shift).max() < 0.3
    assert (part["noise_invariance"].centred_cosine_stderr > 0).all()
    assert "centred_cosine_stderr" not in whole["noise_invariance"]
