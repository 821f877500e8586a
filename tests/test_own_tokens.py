"""Statistics and features are of the current chunk's tokens, whatever else the layers carry."""

import copy

import counted
import pytest
import torch
import xarray as xr
from torch import nn

from framelens.analyses import statistics
from framelens.diffusion.own_tokens import own_tokens
from framelens.probes import experiments
from framelens.probes.experiments.noise_invariance import residual_stream
from framelens.probes.run.probed_clip import ProbedClip

FUSIONS = ("token_concat", "token_concat_projected", "prefix")
READS_STREAM = ("rollouts", "noise_invariance", "readout", "known_state")
"""Experiments that read the residual stream, but for mask_drift, which needs another kind of network."""
CHUNK = 25
"""Tokens of a chunk of the networks here."""


def with_points_on_own_tokens(network):
    """The same network, whose hook points are passed the last tokens of each value and no others."""
    twin, points = copy.deepcopy(network), {}
    stream = ("hook_embed", "hook_resid_post", "hook_attn_out", "hook_mlp_out")
    for name, module in twin.hook_dict.items():
        if not name.endswith(stream):
            continue
        points[name] = point = nn.Identity()
        module.register_forward_hook(pass_own_tokens_to(point))
    twin.hook_dict = points
    return twin


def pass_own_tokens_to(point):
    def hook(_module, _inputs, out):
        point(out[:, -CHUNK:])

    return hook


def clip_of(network, **changes):
    return counted.probed(network, counted.settings(**{"statistics": ()} | changes))[0]


def with_own_points(probed_clip):
    networks = {name: with_points_on_own_tokens(network) for name, network in probed_clip.networks.items()}
    return ProbedClip(
        probed_clip.index,
        networks,
        probed_clip.clip,
        probed_clip.other,
        probed_clip.settings,
        probed_clip.frames,
    )


@pytest.fixture(scope="module", params=FUSIONS)
def network(request):
    return counted.separated(fusion=request.param)


@pytest.mark.slow
@pytest.mark.parametrize("name", READS_STREAM)
def test_what_is_read_of_the_stream_is_of_the_own_tokens(name, network):
    with counted.few():
        probed_clip = clip_of(network)
        found = experiments.load(name).measure(probed_clip)
        expected = experiments.load(name).measure(with_own_points(probed_clip))
    if name == "rollouts":
        assert set(found) == {*statistics.names(), "samples"}
    for part, dataset in expected.items():
        xr.testing.assert_identical(found[part], dataset)


def test_two_noise_draws_of_an_untrained_network_have_nothing_in_common():
    network = counted.separated(fusion="token_concat")
    with counted.few():
        found = experiments.load("noise_invariance").measure(clip_of(network))["noise_invariance"]
    assert abs(found.centred_cosine.sel(sigma=1.0)).max() < 0.15


@pytest.mark.slow
@pytest.mark.parametrize("tokens", [CHUNK - 1, CHUNK, CHUNK + 5, 2 * CHUNK])
def test_a_sample_may_be_larger_than_a_chunk(tokens):
    network = counted.separated(fusion="token_concat")
    probed_clip = clip_of(network, tokens=tokens, statistics=("step_similarity",))
    found = experiments.load("rollouts").measure(probed_clip)["step_similarity"]
    assert ("cosine_stderr" in found) == (tokens < CHUNK)


def test_a_value_without_other_tokens_is_handed_on_as_it_is(network):
    for model in (counted.dense(), network):
        value = torch.zeros(1, CHUNK, 16)
        for name in model.hook_dict:
            assert own_tokens(model, name, value) is value


def test_the_own_tokens_are_the_last_ones_where_the_model_says_so():
    model = counted.separated(fusion="token_concat")
    value = torch.arange(2 * CHUNK, dtype=torch.float32)[None, :, None]
    own = own_tokens(model, "decoder.blocks.0.hook_mlp_out", value)
    assert torch.equal(own, value[:, CHUNK:])


def test_several_chunks_in_one_pass_have_that_many_tokens():
    value = torch.zeros(1, 3 * CHUNK, 16)
    assert own_tokens(counted.dense(), "blocks.0.hook_resid_post", value, frames=3) is value


def test_more_tokens_than_a_chunk_has_are_refused_where_the_model_does_not_say_which_are_its_own():
    with pytest.raises(ValueError, match=rf"blocks.0.hook_resid_post.* 30 tokens.*{CHUNK}.*own_queries"):
        own_tokens(counted.dense(), "blocks.0.hook_resid_post", torch.zeros(1, 30, 16))


def test_one_pass_gives_the_own_tokens_of_every_layer():
    probed_clip = clip_of(counted.separated(fusion="token_concat"))
    model = probed_clip.networks["trained"]
    context = model.start(1, probed_clip.clip.cond)
    kept = residual_stream(model, probed_clip.clip.video[:, :1], 1.0, context, 0)
    assert {value.shape[0] for value in kept.values()} == {CHUNK} and len(kept) == 3


def test_two_rows_for_one_clip_are_refused():
    with pytest.raises(ValueError, match=r"blocks.0.hook_resid_post.* 2 rows.* 1 clip.*--guidance"):
        own_tokens(counted.dense(), "blocks.0.hook_resid_post", torch.zeros(2, CHUNK, 16), clips=1)
