"""A dense network recomposed as a separated one computes what the dense one did, where it can."""

import pytest
import torch
from bounds import assert_same

from framelens import models
from framelens.analyses.statistics.frame_attention import Statistic
from framelens.diffusion.sampler import rollout
from framelens.diffusion.schedule import sigma_grid
from framelens.models import dense, scd
from framelens.models.variants.cut import CutModel, layers_from
from framelens.models.variants.recomposed import recompose
from framelens.probes.experiments.rollouts import make_instruments
from framelens.training.build import build
from framelens.training.recipes import recipe

SMALL = {"height": 8, "width": 8, "heads": 2, "d_model": 16, "conditions": 3, "rope_axes": (4, 2, 2)}
ACTIONS = torch.tensor([[0, 1, 2, 1], [2, 0, 1, 1]])


def whole(layers: int = 5) -> dense.Dense:
    torch.manual_seed(0)
    network = dense.build(dense.config("tiny", layers=layers, **SMALL))
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    return network.eval().requires_grad_(False)


def separated(encoder: int, decoder: int, head: int, **changes) -> scd.SCD:
    said = {"fusion": "residual", "query": "noise", "start_token": False} | changes
    layers = {"encoder_layers": encoder, "decoder_layers": decoder, "head": head}
    return scd.build(scd.config("tiny", **SMALL | layers | said)).eval().requires_grad_(False)


def after(model, frames: int):
    context, clip = model.start(2, ACTIONS), torch.randn(2, 4, 3, 8, 8)
    for frame in range(frames):
        context = model.encode(clip[:, frame : frame + 1], context)
    return context


def asked(model: scd.SCD, frame: int) -> torch.Tensor:
    return model.query_noise(frame).expand(2, 1, -1, -1, -1)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("head", [0, 1, 2])
def test_a_first_frame_from_the_noise_it_was_asked_with_is_the_dense_networks(head):
    network, model = whole(), separated(3, head + 2, head)
    recompose(model, network)
    x, sigma = asked(model, 0), torch.ones(2)
    expected = network.denoise(x, sigma, network.start(2, ACTIONS))
    got = model.denoise(x, sigma, model.start(2, ACTIONS))
    assert_same(got, expected)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("frames", [1, 3])
def test_a_later_one_is_that_of_the_dense_network_cut_behind_the_encoder(frames):
    network, model = whole(), separated(3, 2, 0)
    recompose(model, network)
    x, sigma = asked(model, frames), torch.ones(2)
    torch.manual_seed(1)
    ours = model.denoise(x, sigma, after(model, frames))
    torch.manual_seed(1)
    context = after(network, frames)
    cut = CutModel(network, layers_from(network, 3)).denoise(x, sigma, context)
    assert_same(ours, cut)
    assert not torch.allclose(ours, network.denoise(x, sigma, context), atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("fusion", ["token_concat", "prefix", "channel_concat"])
def test_other_fusions_start_from_the_same_layers(fusion):
    network, model = whole(), separated(4, 3, 1, fusion=fusion)
    recompose(model, network)
    theirs = network.state_dict()
    for stack, origins in (("encoder", [0, 1, 2, 3]), ("decoder", [0, 3, 4])):
        for place, origin in enumerate(origins):
            own = model.get_submodule(f"{stack}.blocks.{place}").state_dict()
            for leaf, weight in own.items():
                assert torch.equal(weight, theirs[f"blocks.{origin}.{leaf}"])
    assert torch.equal(model.decoder.unembed.weight, network.unembed.weight)
    assert rollout(model, torch.randn(2, 4, 3, 8, 8), sigma_grid(2), ACTIONS).isfinite().all()


def test_what_cannot_be_put_together_says_why():
    with pytest.raises(ValueError, match=r"\['encoder\.blocks\.2"):
        recompose(separated(3, 2, 0), whole(layers=2))
    with pytest.raises(ValueError, match="SCD"):
        recompose(separated(3, 2, 0), separated(3, 2, 0))


@pytest.mark.slow
def test_a_separated_recipe_starts_from_a_dense_model():
    model = build(recipe("split-tiles"))
    theirs = models.load("dense-tiles").state_dict()
    assert torch.equal(model.encoder.blocks[5].attn.q.weight, theirs["blocks.5.attn.q.weight"])
    assert torch.equal(model.decoder.blocks[3].attn.q.weight, theirs["blocks.6.attn.q.weight"])


def test_a_model_that_asks_announces_it():
    passes = []
    model = separated(2, 2, 1)
    rollout(model, torch.randn(2, 3, 3, 8, 8), sigma_grid(1), ACTIONS, on_pass=passes.append)
    assert [(at.role, at.frame, at.sigma) for at in passes] == [
        ("ask", 0, 1.0), ("denoise", 0, 1.0), ("encode", 0, 0.0),
        ("ask", 1, 1.0), ("denoise", 1, 1.0), ("encode", 1, 0.0),
        ("ask", 2, 1.0), ("denoise", 2, 1.0),
    ]  # fmt: skip


@pytest.mark.slow
def test_attention_is_read_where_the_encoder_asks_for_a_probed_frame():
    model, statistic = separated(2, 2, 1), Statistic(queries=None)
    with make_instruments(model, {"frame_attention": statistic}, {2}) as attached:
        rollout(model, torch.randn(1, 4, 3, 8, 8), sigma_grid(2), ACTIONS[:1], on_pass=attached.on_pass)
    read = statistic.result()
    encoder, decoder = (read.isel(layer=layers) for layers in ([0, 1], [2, 3]))
    assert [name.split(".")[0] for name in read.point.values] == ["encoder"] * 2 + ["decoder"] * 2
    assert read.frame.values.tolist() == [2]
    assert (encoder.cross_mass.isel(step=0) > 0).all() and encoder.cross_mass.isel(step=1).isnull().all()
    assert (decoder.cross_mass == 0).all()
    assert encoder.mass.isel(step=0).sum("lag").values == pytest.approx(1, abs=1e-5)


def test_settings_that_contradict_say_so():
    with pytest.raises(ValueError, match="start_token=false"):
        separated(3, 2, 0, start_token=True)
    with pytest.raises(ValueError, match=r"\b0 .*\b2 .*\b3\b"):
        separated(3, 4, 3)
    with pytest.raises(ValueError, match="'hope'.*past, noise"):
        separated(3, 2, 0, query="hope")
    with pytest.raises(ValueError, match="query_sigma"):
        separated(3, 2, 0, query_sigma=0.0)
