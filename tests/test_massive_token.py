"""One token of large norm, the same at every step or noise draw, does not decide finding 1."""

import fake_run
import pytest
import torch
import xarray as xr

from framelens.analyses.averages import off_diagonal
from framelens.analyses.decision.findings import findings
from framelens.analyses.decision.repeated_features import FeatureEvidence
from framelens.analyses.noise_invariance import compare_tokens
from framelens.analyses.statistics.step_similarity import Statistic
from framelens.analyses.sums.token_cosines import largest_shares
from framelens.diffusion.sampler import ForwardPass
from framelens.reports.findings.findings import findings as findings_in_words
from framelens.reports.page.page import page
from framelens.reports.runs import open_run

CLIPS, STEPS, TOKENS, WIDTH = 6, 3, 100, 128


def similarity_of_clip(seed, scale, shared):
    """Features of STEPS steps; all have in common the share `shared` of each token, and one massive token
    of `scale` times the norm.
    """
    draws = torch.Generator().manual_seed(seed)
    massive, common = torch.zeros(TOKENS, WIDTH), torch.randn(TOKENS, WIDTH, generator=draws)
    massive[0] = scale * torch.randn(WIDTH, generator=draws)
    statistic = Statistic()
    for step in range(STEPS):
        own = torch.randn(TOKENS, WIDTH, generator=draws)
        value = (shared**0.5 * common + (1 - shared) ** 0.5 * own + massive)[None]
        for layer in range(3):
            at = ForwardPass(0, step, 1 - step / STEPS, "denoise")
            statistic.add(at, f"blocks.{layer}.hook_resid_post", value)
    return statistic.result()


def step_similarity(scale, shared=0.0):
    """A run's dataset; random weights have no massive token, so the null does not show it."""
    networks = [
        xr.concat([similarity_of_clip(seed, *of, shared) for seed in range(CLIPS)], "clip")
        for of in ((scale,), (0,))
    ]
    if shared:
        networks[1] = step_similarity(0).sel(network="random", drop=True)
    return xr.concat(networks, "network").assign_coords(network=["trained", "random"])


def noise_invariance(scale):
    """Two noise draws that share the massive token and nothing else; the other context has none."""
    rows = []
    for seed in range(CLIPS):
        draws = torch.Generator().manual_seed(seed)
        massive = torch.zeros(TOKENS, WIDTH)
        massive[0] = scale * torch.randn(WIDTH, generator=draws)
        first, second, other = (torch.randn(TOKENS, WIDTH, generator=draws) for _ in range(3))
        null = compare_tokens(first + massive, other)
        row = compare_tokens(first + massive, second + massive) | largest_shares(first + massive)
        row |= {"other_context": null.pop("centred_cosine")}
        row |= {f"other_context_{name}": value for name, value in null.items()}
        rows.append({name: float(value) for name, value in row.items()})
    dims = ("clip", "network", "frame", "layer", "sigma")
    values = {name: (dims, [[[[[row[name]]] * 3]] for row in rows]) for name in rows[0]}
    coords = {"network": ["trained"], "frame": [0], "layer": [0, 1, 2], "sigma": [1.0]}
    return xr.Dataset(values, coords)


@pytest.fixture(scope="module")
def massive():
    return {"step_similarity": step_similarity(30), "noise_invariance": noise_invariance(30)}


def test_a_massive_token_alone_does_not_confirm_the_finding(massive):
    """By the centred cosine of whole maps it would: 0.89 of steps and of draws, against nulls near 0."""
    stored = massive["step_similarity"].centred_cosine
    whole = off_diagonal(stored).mean(("clip", "frame", "layer"))
    assert float(whole.sel(network="trained")) > 0.85 and abs(float(whole.sel(network="random"))) < 0.1
    gain = massive["noise_invariance"].centred_cosine - massive["noise_invariance"].other_context
    assert float(gain.mean()) > 0.85
    finding, _ = findings(massive)
    assert [test.passed for test in finding.tests] == [False, False, False]
    assert finding.verdict == "not confirmed"
    assert abs(finding.tests[0].value) < 0.1 and abs(finding.tests[2].value) < 0.1


@pytest.mark.parametrize("scale", [0, 30])
def test_tokens_that_are_repeated_pass_with_and_without_a_massive_one(scale):
    finding, _ = findings({"step_similarity": step_similarity(scale, shared=0.9)})
    assert [test.passed for test in finding.tests[:2]] == [True, True]
    assert finding.tests[0].value == pytest.approx(0.9, abs=0.02)


def test_the_page_names_the_token_that_holds_most_of_the_norm(tmp_path):
    folder = fake_run.write(tmp_path / "run", layers=4, steps=4, heads=2, clips=5)
    file = folder / "step_similarity.nc"
    stored = xr.load_dataset(file, engine="netcdf4")
    assert not FeatureEvidence({"step_similarity": stored}).massive
    stored["token_share"][:, 0, :, :, 3] = 0.93
    stored["token_share"][:, 0, :, :, 4] = 0.6
    stored["token_share"][:, 1] = 0.99
    stored["channel_share"][:, 0, :, :, 0] = 0.71
    stored.to_netcdf(file, engine="netcdf4")
    text = page(open_run(folder), [], {})
    assert "One token holds 93 % of the squared norm at layer 2, and more than 50 % in 2 of 5 layers" in text
    assert "One channel holds 71 % of the squared norm at the embedding, and more than 50 % in 1 of 5" in text


def test_a_run_without_the_cosine_of_tokens_leaves_the_finding_undecided(tmp_path):
    folder = fake_run.write(tmp_path / "run", layers=4, steps=4, heads=2, clips=5)
    for name in ("step_similarity", "noise_invariance"):
        stored = xr.load_dataset(folder / f"{name}.nc", engine="netcdf4")
        old = stored.drop_vars([each for each in stored if "token" in each or "channel" in each])
        old.to_netcdf(folder / f"{name}.nc", engine="netcdf4")
    finding, _ = findings_in_words(open_run(folder))
    assert finding.verdict == "undecided"
    assert "has no token_cosine_median: it is of an older version, probe again" in finding.tests[0].measured
    assert page(open_run(folder), [], {})
