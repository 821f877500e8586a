"""A separated network is trained on whole clips: one pass of each half gives what sampling gives."""

from dataclasses import replace
from functools import partial

import batches
import pytest
import torch
from bounds import assert_same

from framelens import models
from framelens.diffusion.contract import traits
from framelens.diffusion.loss import flow_matching_loss
from framelens.models.separated.network import SeparatedNetwork
from framelens.models.variants.separated import separate
from framelens.training.build import build
from framelens.training.recipes import Recipe
from framelens.videos import latents

OURS = batches.ours(layers=4)
BATCH, CHUNKS = 2, 3
clip = partial(batches.clip, batch=BATCH, chunks=CHUNKS)
condition = partial(batches.condition, batch=BATCH, chunks=CHUNKS)


def separated(name, folder) -> SeparatedNetwork:
    """The network of that name, its first layer again as the head; it is not in training mode."""
    network = OURS[name]().eval() if name in OURS else batches.load_twin(name, folder).double()
    depth = network.geometry.layers
    return separate(network, encoder=range(depth), head=range(1), tail=range(depth - 1, depth), share=True)


@pytest.fixture(params=[*OURS, "wan", "self_forcing", "skyreels", "far"])
def model(request, tmp_path, all_float64):
    return separated(request.param, tmp_path)


def levels(model, seed=5):
    """A noise level for each frame of the clips, the same within a chunk."""
    drawn = torch.rand(BATCH, CHUNKS, generator=torch.Generator().manual_seed(seed))
    return drawn.repeat_interleave(model.geometry.frames_per_chunk, dim=1)


def chunk_by_chunk(model, clean, noisy, sigma, cond):
    """The velocity of noisy chunks given the clean past, as a sampler's passes give it."""
    size, context, found = model.geometry.frames_per_chunk, model.start(BATCH, cond), []
    for first in range(0, clean.shape[1], size):
        span = slice(first, first + size)
        found.append(model.denoise(noisy[:, span], sigma[:, first], context))
        context = model.encode(clean[:, span], context)
    return torch.cat(found, dim=1)


@torch.no_grad()
def test_one_pass_over_a_clip_is_sampling_chunk_by_chunk(model):
    clean, noisy, sigma, cond = clip(model), clip(model, seed=1), levels(model), condition(model)
    expected = chunk_by_chunk(model, clean, noisy, sigma, cond)
    assert_same(traits(model).teacher_forced(clean, noisy, sigma, cond), expected)


@torch.no_grad()
def test_the_encoder_runs_once_for_several_draws_of_noise(model):
    clean, cond, passes = clip(model), condition(model), []
    handle = model.encoder.blocks[0].register_forward_hook(lambda *_: passes.append(1))
    noisy, sigma = ([make(model, seed=seed) for seed in (1, 2)] for make in (clip, levels))
    both = model.teacher_forced(clean, torch.cat(noisy, 1), torch.cat(sigma, 1), cond)
    assert len(passes) == 1
    handle.remove()
    each = [model.teacher_forced(clean, *draw, cond) for draw in zip(noisy, sigma, strict=True)]
    assert_same(both, torch.cat(each, dim=1))


@torch.no_grad()
def test_the_halves_are_the_whole_pass(model):
    clean, noisy, sigma, cond = clip(model), clip(model, seed=1), levels(model), condition(model)
    features = model.read_clip(clean, cond)
    halves = model.decode_clip(features, noisy, sigma, cond)
    assert torch.equal(halves, model.teacher_forced(clean, noisy, sigma, cond))
    assert not torch.allclose(halves, model.decode_clip(2 * features, noisy, sigma, cond))


def test_gradients_reach_every_layer_of_both_halves(model):
    model.requires_grad_(True).train()
    clean, noise = clip(model), clip(model, seed=1)
    flow_matching_loss(model, clean, noise, levels(model), condition(model)).mean().backward()
    for half in (model.encoder, model.decoder):
        for layer, block in enumerate(half.blocks):
            without = [name for name, weight in block.named_parameters() if not _is_moved(weight)]
            assert not without, (layer, without)


def _is_moved(weight):
    return weight.grad is not None and weight.grad.abs().max() > 0


@torch.no_grad()
def test_training_draws_its_queries_and_noise_on_features_anew(model):
    clean, noisy, sigma, cond = clip(model), clip(model, seed=1), levels(model), condition(model)

    def twice(run):
        return torch.equal(run(), run())

    assert twice(lambda: model.read_clip(clean, cond))
    model.train()
    assert not twice(lambda: model.read_clip(clean, cond))
    model.query_sigma = 1.0  # noise alone, and other noise each time
    assert not twice(lambda: model.read_clip(clean, cond))
    assert not twice(lambda: model.teacher_forced(clean, noisy, sigma, cond))

    def drawn(noise):
        model.context_noise = noise
        torch.manual_seed(0)  # the queries are drawn first, and are the same
        return model.read_clip(clean, cond)

    added = drawn(0.1) - drawn(0.0)
    assert added.std().item() == pytest.approx(0.1, rel=0.2) and torch.equal(drawn(0.1), drawn(0.1))


@torch.no_grad()
def test_a_query_of_training_is_the_true_chunk_at_a_level_within_bounds(model):
    model.train().query_sigma = 1e-9
    clean, cond, asked, chunk = clip(model), condition(model), [], model.geometry.frames_per_chunk
    enter = model.encoder.enter_clip
    model.encoder.enter_clip = lambda *given: asked.append(given) or enter(*given)
    model.read_clip(clean, cond)
    _, queries, sigma, _ = asked[0]
    assert (sigma > 0).all() and (sigma < 1).all()
    by_chunk = sigma.unflatten(1, (-1, chunk))
    assert torch.equal(by_chunk, by_chunk[:, :, :1].expand_as(by_chunk)) and by_chunk.unique().numel() == 6
    level = sigma[..., None, None, None]
    noise = (queries - (1 - level) * clean) / level
    assert noise.mean().abs() < 0.3 and 0.7 < noise.std() < 1.3


@pytest.mark.parametrize("name", ["anyflow", "far_long"])
def test_a_recipe_that_separates_such_a_family_is_refused_with_the_reason(name, tmp_path):
    network = batches.load_twin(name, tmp_path)
    models.save(network, tmp_path / "own.safetensors")
    latents.write(tmp_path / "clips.safetensors", batches.clip(network, 20, 2).numpy())
    parts = {"encoder_layers": network.geometry.layers, "decoder_layers": 1}
    chosen = Recipe("separated", str(tmp_path / "clips.safetensors"), architecture=parts, batch=1, frames=2)
    with pytest.raises(ValueError, match="becomes coarse as a clip goes on") as error:
        build(replace(chosen, initial=str(tmp_path / "own.safetensors")))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["anyflow", "far_long"])
def test_a_family_whose_past_is_made_coarse_is_not_trained_by_clips(name, tmp_path, all_float64):
    model = separated(name, tmp_path)
    assert traits(model).teacher_forced is None
    with pytest.raises(ValueError, match="SeparatedNetwork has no teacher_forced"):
        flow_matching_loss(model, clip(model), clip(model), levels(model), condition(model))
