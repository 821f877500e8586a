"""Low-rank adapters: nothing changes at first, they alone are trained, and what is saved has them merged."""

import copy
from dataclasses import replace

import batches
import pytest
import tiny
import torch
from bounds import assert_same
from safetensors.torch import load_file

from framelens import models
from framelens.__main__ import main
from framelens.diffusion.contract import traits
from framelens.models import dense, scd
from framelens.models.cost.shape import shape_of
from framelens.models.cost.training import TrainingStep
from framelens.models.variants.separated import separate
from framelens.training import distil, loop, trainer
from framelens.training.adapters import add_adapters, merge, trained_state
from framelens.training.build import build
from framelens.training.recipes import SPLIT, Recipe, recipe
from framelens.training.state import TrainingFolder
from framelens.training.trainer import Training

FAMILIES = ["wan", "self_forcing", "skyreels", "anyflow", "far", "far_long"]
RANK, ALPHA = 2, 6.0


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Presets for tests, a short validation, and no sample videos."""
    monkeypatch.setitem(dense.PRESETS, "test", tiny.config())
    layers = {"encoder_layers": 2, "decoder_layers": 2}
    monkeypatch.setitem(scd.PRESETS, "test", scd.Config(**tiny.SHAPE, **layers))
    monkeypatch.setattr(trainer, "measure_validation_loss", lambda *_: {0.5: 1.0})
    monkeypatch.setattr(distil, "VALIDATION_CLIPS", 1)
    monkeypatch.setattr(TrainingFolder, "_write_sample", lambda folder, run: None)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return str(tiny.checkpoint(tmp_path_factory.mktemp("base") / "base.safetensors"))


def low(base, **changes):
    settings = {"steps": 4, "batch": 2, "frames": 3, "warmup": 1, "lora_rank": RANK, "lora_alpha": ALPHA}
    settings |= {"autocast": "float32", "save_every": 2, "keep_every": 100, "initial": base}
    return Recipe("dense", "tiles", "test", **settings | changes)


def separated(base, **changes):
    parts = SPLIT | {"encoder_layers": 2, "decoder_layers": 2, "head": 1}
    return replace(low(base, **changes), network="scd", architecture=parts)


def some_pass(model):
    """A velocity after a finished chunk."""
    x = batches.clip(model, 2, 1, seed=3)
    return model.denoise(x, torch.full((2,), 0.7), batches.after(model, 2, 2, 1))


def moved(model):
    """The model with adapters that do something."""
    with torch.no_grad():
        for weight in trained_state(model).values():
            weight += 0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    return model


@pytest.fixture(params=FAMILIES)
def twin(request, tmp_path):
    return batches.load_twin(request.param, tmp_path)


@torch.no_grad()
def test_in_every_family_nothing_changes_at_first_and_a_merged_network_is_the_adapted_one(twin):
    before, expected = copy.deepcopy(twin.state_dict()), some_pass(twin)
    again = copy.deepcopy(twin)
    add_adapters(twin, RANK, ALPHA, seed=0)
    assert torch.equal(some_pass(twin), expected)
    merged = merge(moved(twin).state_dict(), ALPHA / RANK)
    assert merged.keys() == before.keys()
    again.load_state_dict(merged)
    assert_same(some_pass(again), some_pass(twin), bound=1e-5)
    assert not torch.allclose(some_pass(twin), expected, atol=1e-4)


def test_every_block_has_adapters_for_attention_and_mlp_and_norms_have_none(twin):
    add_adapters(twin, RANK, ALPHA, seed=0)
    names = {name.partition(".lora_")[0] for name in trained_state(twin)}
    per_block = {sum(f"blocks.{layer}." in name for name in names) for layer in range(len(twin.blocks))}
    assert min(per_block) >= 6 and not any("norm" in name or "embed" in name for name in names)


def test_both_halves_of_a_separated_network_have_their_own(tmp_path):
    network = batches.load_twin("wan", tmp_path)
    depth = network.geometry.layers
    layers = {"encoder": range(depth), "tail": range(depth - 1, depth)}
    add_adapters(copied := separate(network, **layers), RANK, ALPHA, seed=0)
    assert {name.partition(".")[0] for name in trained_state(copied)} == {"encoder", "decoder"}
    with pytest.raises(ValueError, match="encoder and decoder hold the same weights") as error:
        add_adapters(separate(network, share=True, **layers), RANK, ALPHA, seed=0)
    assert "\n" not in str(error.value)


def test_what_is_saved_is_the_base_plus_the_adapters(base, tmp_path):
    file = loop.train(low(base), tmp_path / "out", "cpu", progress=False)
    saved, state = load_file(file), torch.load(tmp_path / "out/state.pt", weights_only=True)
    before = load_file(base)
    assert saved.keys() == before.keys()
    for name, weight in before.items():
        stem = name.removesuffix(".weight")
        a, b = (state["average"].get(f"{stem}.lora_{which}.default.weight") for which in "AB")
        if a is None:
            assert torch.equal(saved[name], weight), name
        else:
            assert b.abs().max() > 0 and torch.equal(saved[name], weight + ALPHA / RANK * (b @ a)), name
    assert state["model"].keys() == state["average"].keys() and all("lora_" in n for n in state["model"])
    assert all(value.numel() < 500 for value in state["model"].values())
    model = models.load(str(file))
    assert isinstance(model, dense.Dense) and not any("lora" in name for name in model.state_dict())


@pytest.mark.parametrize("make", [low, separated])
def test_only_adapters_have_gradients_and_nothing_else_changes(make, base):
    training = Training(make(base), build(make(base)), "cpu")
    before = copy.deepcopy(training.model.state_dict())
    training.backpropagate(slice(None))
    given = {name for name, weight in training.model.named_parameters() if weight.grad is not None}
    assert given == {name for name, w in training.model.named_parameters() if w.requires_grad}
    training.advance()
    training.advance()
    after = training.model.state_dict()
    changed = {name for name, weight in after.items() if not torch.equal(weight, before[name])}
    assert changed == set(trained_state(training.model)) == set(training.average) == given
    (optimizer,) = training.optimizers
    assert isinstance(optimizer, torch.optim.AdamW), "whatever `muon` says"


def test_one_half_alone_has_adapters_where_it_alone_is_trained(base):
    model = build(separated(base, train_only="decoder"))
    assert {name.partition(".")[0] for name in trained_state(model)} == {"decoder"}


def test_a_stopped_training_goes_on_to_the_same_weights(base, tmp_path, monkeypatch):
    whole = loop.train(low(base), tmp_path / "whole", "cpu", progress=False)
    advance = Training.advance

    def stop(run):
        if run.step == 3:
            raise KeyboardInterrupt
        return advance(run)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Training, "advance", stop)
        loop.train(low(base), tmp_path / "again", "cpu", progress=False)
    again = loop.train(low(base), tmp_path / "again", "cpu", progress=False)
    first, second = load_file(whole), load_file(again)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_decoder_is_distilled_by_adapters(base, tmp_path):
    teacher = loop.train(separated(base, lora_rank=0, steps=1), tmp_path / "teacher", "cpu", progress=False)
    chosen = separated(str(teacher), teacher=str(teacher), train_only="decoder", levels=4, steps=2)
    file = loop.train(chosen, tmp_path / "few", "cpu", progress=False)
    before, after = load_file(teacher), load_file(file)
    changed = {name for name, weight in after.items() if not torch.equal(weight, before[name])}
    assert changed and all(name.startswith("decoder.blocks.") for name in changed)
    sampling = traits(models.load(str(file))).sampling
    assert sampling is not None and sampling.renoise


@pytest.mark.parametrize("make", [low, separated])
def test_the_estimate_counts_the_weights_that_are_trained(make, base):
    training = Training(make(base), build(make(base)), "cpu")
    training.advance()
    trained = [weight for weight in training.model.parameters() if weight.requires_grad]
    step = TrainingStep(shape_of(traits(training.model).config, batch=2), 3, lora=RANK)
    assert step.trained == sum(weight.numel() for weight in trained)
    found, weights = step.bytes(), training.model.parameters()
    assert found["weights"] == pytest.approx(sum(weight.nbytes for weight in weights), rel=1e-2)
    assert found["average"] == found["gradients"] == sum(weight.nbytes for weight in trained)


def test_weights_that_no_one_has_trained_are_not_frozen(base):
    chosen = separated(base)
    asking = replace(chosen, architecture=chosen.architecture | {"query": "learned"})
    for wrong in (asking, replace(asking, network="separated", videos="tiles")):
        layers = {"encoder_layers": 2, "decoder_layers": 2, "head": 1, "query": "learned"}
        made = replace(wrong, architecture=layers) if wrong.network == "separated" else wrong
        with pytest.raises(ValueError, match="queries.mark would stay random") as error:
            build(made)
        assert "\n" not in str(error.value)
    assert build(replace(asking, lora_rank=0))


def test_without_a_trained_network_there_is_nothing_to_adapt(tmp_path, capsys):
    words = ["train", "--model", "dense-tiles", "--out", str(tmp_path / "out"), "--set", "lora_rank=4"]
    assert main(words) == 2 and not (tmp_path / "out").exists()
    error = capsys.readouterr().err
    assert "lora_rank=4 changes a trained network" in error and error.count("\n") == 1
    assert recipe("dense-tiles-cut", lora_rank=4).lora_rank == 4
