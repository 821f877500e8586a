"""Any network with uniform layers is separated: it computes what the network did, where it can."""

from functools import partial
from pathlib import Path

import batches
import pytest
import tiny
import tiny_scd
import torch
import twins
from bounds import assert_same

import framelens
from framelens import models
from framelens.diffusion.sampler import rollout
from framelens.diffusion.schedule import sigma_grid
from framelens.models import adapter_template, scd
from framelens.models.parts.fusion import FUSIONS
from framelens.models.separated.network import SeparatedNetwork
from framelens.models.variants.fetch_once import fetch_once
from framelens.models.variants.separated import separate
from framelens.records.plan import Plan

OURS = batches.ours(layers=4)
FAMILIES = ["wan", "self_forcing", "skyreels", "anyflow", "far", "far_long"]
CHUNKS, BATCH = 4, 2


@pytest.fixture(params=[*OURS, *FAMILIES])
def network(request, tmp_path, all_float64):
    if request.param in OURS:
        return OURS[request.param]()
    return batches.load_twin(request.param, tmp_path).double()


condition = partial(batches.condition, batch=BATCH, chunks=CHUNKS)


def clip(model, seed=0):
    return batches.clip(model, BATCH, CHUNKS, seed)


def after(model, seen):
    return batches.after(model, BATCH, CHUNKS, seen)


def split(network, encoder, head=0, share=True):
    depth = network.geometry.layers
    return separate(
        network, encoder=range(encoder), head=range(head), tail=range(encoder, depth), share=share
    )


@torch.no_grad()
@pytest.mark.parametrize("chunks", [0, 1, 3])
def test_from_the_noise_it_asked_with_it_is_the_network_cut_after_the_encoder(network, chunks):
    for encoder in range(1, network.geometry.layers):
        model, cut = split(network, encoder), fetch_once(network, encoder)
        x = model.query_noise(chunks * model.geometry.frames_per_chunk).expand(BATCH, -1, -1, -1, -1)
        expected = cut.denoise(x, torch.ones(BATCH), after(network, chunks))
        assert_same(model.denoise(x, torch.ones(BATCH), after(model, chunks)), expected)


@torch.no_grad()
def test_a_head_runs_again_at_every_step_and_a_first_chunk_is_the_networks(network):
    model = split(network, network.geometry.layers, network.geometry.layers - 1)
    x = model.query_noise(0).expand(BATCH, -1, -1, -1, -1)
    expected = network.denoise(x, torch.ones(BATCH), network.start(BATCH, condition(network)))
    assert_same(model.denoise(x, torch.ones(BATCH), after(model, 0)), expected)


@torch.no_grad()
def test_prepared_steps_are_the_unprepared_ones(network):
    model = split(network, 1)
    context, x = after(model, 2), clip(model, 1)[:, : model.geometry.frames_per_chunk]
    if type(network).__name__ == "AnyFlow":  # its prepared steps end at the next noise level
        pytest.skip("a step of AnyFlow depends on the next one")
    for sigma, own in zip(sigma_grid(3), model.at_steps(sigma_grid(3)[:-1], context), strict=False):
        assert_same(
            model.denoise(x, sigma.expand(BATCH), own), model.denoise(x, sigma.expand(BATCH), context)
        )


def test_a_dense_network_becomes_an_scd_with_the_same_frames(all_float64):
    network = tiny.model(layers=4, conditions=3)
    copied, shared = split(network, 3, 1, share=False), split(network, 3, 1)
    assert isinstance(copied, scd.SCD) and isinstance(shared, SeparatedNetwork)
    assert {id(w) for w in shared.parameters()} <= {id(w) for w in network.parameters()}
    noise, cond = clip(network, 1), condition(network)
    assert_same(*(rollout(model, noise, sigma_grid(3), cond) for model in (copied, shared)))


def test_copies_do_not_change_with_the_network(tmp_path):
    path, said = twins.twin("wan", tmp_path)
    network = models.load(path, **said)
    copied = split(network, 1, share=False)
    before = [weight.clone() for weight in copied.parameters()]
    with torch.no_grad():
        for weight in network.parameters():
            weight.zero_()
    assert all(torch.equal(a, b) for a, b in zip(before, copied.parameters(), strict=True))


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_separated_dense_network_is_saved_and_opens_like_any_other(tmp_path, fusion):
    network = models.load(str(tiny.checkpoint(tmp_path / "dense.safetensors")))
    model = separate(network, encoder=range(1), tail=range(1, 2), fusion=fusion)
    models.save(model, tmp_path / "separated.safetensors")
    again = models.load(str(tmp_path / "separated.safetensors"))
    assert isinstance(again, scd.SCD) and again.source.videos == "tiles" and again.config.fusion == fusion
    weights = again.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
    for place, half in ((0, again.encoder), (1, again.decoder)):
        own, whole = half.blocks[0].state_dict(), network.blocks[place].state_dict()
        assert all(torch.equal(own[name], value) for name, value in whole.items())
    video = rollout(
        again, tiny.draw(1, 2, 3, 20, 20).float(), sigma_grid(2), torch.zeros(1, 2, dtype=torch.long)
    )
    assert video.isfinite().all()


def test_a_plan_gives_the_layers():
    plan = Plan.read(Path(__file__).parents[1] / "reports/gallery/dense-tiles-plan.json")
    network = tiny.model(layers=12, **tiny.TILES)
    config, planned = separate(network, plan).config, plan.architecture
    assert planned is not None and planned == {name: getattr(config, name) for name in planned}


@pytest.mark.parametrize(
    ("make", "layers", "message"),
    [
        (tiny.model, {"encoder": [0, 1, 2], "tail": [1]}, r"of 2 layers .*got encoder \[0, 1, 2\]"),
        (tiny.model, {"encoder": [1], "tail": [1]}, "the encoder takes the first"),
        (tiny.model, {"encoder": [0], "tail": [0]}, "the tail the last"),
        (tiny.model, {}, "the encoder takes the first"),
        (tiny.model, {"encoder": [0], "tail": [1], "fusion": "sum"}, "no fusion is called 'sum'"),
        (
            tiny.model,
            {"encoder": [0], "tail": [1], "fusion": "add", "share": True},
            "separated with fusion residual, prefix, token_concat, got 'add'",
        ),
        (adapter_template.load, {"encoder": [0], "tail": [1]}, "Adapter cannot be separated"),
        (tiny_scd.model, {"encoder": [0], "tail": [1]}, "SCD cannot be separated"),
    ],
)
def test_what_cannot_be_separated_is_refused_in_one_line(make, layers, message):
    with pytest.raises(ValueError, match=message) as error:
        separate(make(), **layers)
    assert "\n" not in str(error.value)


def test_it_is_public():
    assert framelens.separate is separate
