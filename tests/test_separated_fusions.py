"""Networks of every family, separated with each fusion and query that needs no weights between the halves."""

from functools import partial

import batches
import pytest
import tiny
import torch
from bounds import assert_same

from framelens.diffusion.loss import flow_matching_loss
from framelens.diffusion.sampler import rollout
from framelens.diffusion.schedule import sigma_grid
from framelens.models.separated.network import SeparatedNetwork
from framelens.models.variants.separated import separate

OURS = {name: make for name, make in batches.ours(layers=3).items() if name != "dense"}
BY_CLIPS = ["self_forcing", "skyreels"]
FAMILIES = [*BY_CLIPS, "anyflow", "far_long"]
KINDS = [("token_concat", "noise"), ("prefix", "learned")]
"""Each fusion that reads tokens and each query once; what Wan and FAR compute is in these networks, too."""
BATCH, CHUNKS = 2, 3
clip = partial(batches.clip, batch=BATCH, chunks=CHUNKS)
condition = partial(batches.condition, batch=BATCH, chunks=CHUNKS)


def split(network, fusion, query="noise", tail=1, share=True) -> SeparatedNetwork:
    depth = network.geometry.layers
    parts = {"encoder": range(depth), "tail": range(depth - tail, depth)}
    return separate(network, **parts, fusion=fusion, query=query, share=share)


def load(name, folder):
    return OURS[name]().eval() if name in OURS else batches.load_twin(name, folder).double()


@pytest.fixture(params=[*OURS, *FAMILIES])
def network(request, tmp_path, all_float64):
    return load(request.param, tmp_path)


def first(model, x):
    return x[:, : model.geometry.frames_per_chunk]


@torch.no_grad()
def test_at_sigma_zero_and_one_layer_a_prefix_is_the_concatenated_tokens(network):
    """There the keys of the features are the same, whether they are computed once or at each step."""
    made = [split(network, fusion) for fusion in ("prefix", "token_concat")]
    for seen in (0, 2):
        x, sigma = first(network, clip(network, seed=4)), torch.zeros(BATCH)
        one, two = (each.denoise(x, sigma, batches.after(each, BATCH, CHUNKS, seen)) for each in made)
        assert_same(one, two)


@torch.no_grad()
@pytest.mark.parametrize(("fusion", "query"), KINDS)
def test_a_frame_sees_the_past_through_features_and_no_later_frame(network, fusion, query):
    model, clean, chunk = split(network, fusion, query), clip(network), network.geometry.frames_per_chunk
    other = clean.clone()
    other[:, chunk:] = clip(network, seed=7)[:, chunk:]
    grid, noise = sigma_grid(2), clip(network, seed=1)
    before, now = (
        rollout(model, noise, grid, condition(network), given, teacher_forced=True)
        for given in (clean, other)
    )
    assert torch.equal(before[:, : 2 * chunk], now[:, : 2 * chunk])
    assert not torch.allclose(before[:, 2 * chunk :], now[:, 2 * chunk :], atol=1e-7)


@torch.no_grad()
def test_the_decoder_reads_a_prefix_once_a_chunk(network):
    model, ran, steps = split(network, "prefix"), [], 3
    model.decoder.blocks[0].register_forward_hook(lambda module, given, out: ran.append(out.shape[1]))
    rollout(model, clip(network, seed=1), sigma_grid(steps), condition(network))
    own = model.geometry.tokens_per_frame * model.geometry.frames_per_chunk
    assert ran == [own] * CHUNKS * (1 + steps)


@torch.no_grad()
def test_features_with_noise_are_read_again(network):
    model = split(network, "prefix")
    context = batches.after(model, BATCH, CHUNKS, 1)
    x, sigma = first(network, clip(network, seed=4)), torch.full((BATCH,), 0.5)
    same, other = (model.disturbed(context, much, torch.Generator().manual_seed(0)) for much in (0.0, 1.0))
    expected = model.denoise(x, sigma, context)
    assert_same(model.denoise(x, sigma, same), expected)
    assert not torch.allclose(model.denoise(x, sigma, other), expected, atol=1e-6)


def levels(model, seed=5):
    drawn = torch.rand(BATCH, CHUNKS, generator=torch.Generator().manual_seed(seed))
    return drawn.repeat_interleave(model.geometry.frames_per_chunk, dim=1)


@pytest.mark.parametrize(("fusion", "query"), [*KINDS, ("residual", "learned")])
@pytest.mark.parametrize("name", [*OURS, *BY_CLIPS])
def test_one_pass_over_a_clip_is_sampling_and_trains_every_layer(name, fusion, query, tmp_path, all_float64):
    model = split(load(name, tmp_path), fusion, query, tail=2, share=False)
    if not isinstance(model, SeparatedNetwork):  # a dense network with copied weights is an SCD
        model = split(load(name, tmp_path), fusion, query, tail=2)
    clean, cond, size = clip(model), condition(model), model.geometry.frames_per_chunk
    noisy, sigma = ([make(model, seed=seed) for seed in (1, 2)] for make in (clip, levels))
    with torch.no_grad():
        both = model.teacher_forced(clean, torch.cat(noisy, 1), torch.cat(sigma, 1), cond)
        found = []
        for x, level in zip(noisy, sigma, strict=True):
            context = model.start(BATCH, cond)
            for place in range(0, clean.shape[1], size):
                span = slice(place, place + size)
                found.append(model.denoise(x[:, span], level[:, place], context))
                context = model.encode(clean[:, span], context)
    assert_same(both, torch.cat(found, dim=1))
    model.requires_grad_(True).train()
    flow_matching_loss(model, clean, noisy[0], sigma[0], cond).mean().backward()
    blocks = {name: w for name, w in model.named_parameters() if "blocks." in name or "queries" in name}
    still = [name for name, weight in blocks.items() if weight.grad is None or not weight.grad.any()]
    assert not [name for name in still if not name.endswith(("to_k.bias", "added_k.bias"))]


def test_a_dense_network_with_copied_weights_asks_with_what_an_scd_can():
    model = split(tiny.model(), "prefix", "learned", share=False)
    assert model.config.query == "learned" and model.config.fusion == "prefix"


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"fusion": "channel_concat"}, "fusion residual, prefix, token_concat, got 'channel_concat'"),
        ({"fusion": "prefix", "query": "frame"}, "no query is called 'frame'; there are noise, learned"),
    ],
)
def test_what_a_family_cannot_have_is_refused_in_one_line(asked, message, tmp_path):
    with pytest.raises(ValueError, match=message) as error:
        split(batches.load_twin("wan", tmp_path), **asked)
    assert "\n" not in str(error.value)
