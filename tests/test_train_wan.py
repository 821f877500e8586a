"""A Wan network is built, trained on clips with prompts, saved, and opened as any model."""

from dataclasses import replace

import pytest
import tiny_wan
import torch
from bounds import assert_same, rounding
from safetensors.torch import load_file

from framelens import models
from framelens.diffusion.contract import module_of, traits
from framelens.models import wan
from framelens.models.loading.checkpoint import write
from framelens.training import loop, trainer
from framelens.training.build import build
from framelens.training.recipes import Recipe
from framelens.training.state import TrainingFolder
from framelens.training.tensors import to_tensors
from framelens.videos.worlds import panorama

SMALL = {"layers": 2, "d_model": 24, "heads": 2, "mlp_width": 32, "rope_axes": (4, 4, 4), "frequencies": 16}


@pytest.fixture(autouse=True)
def short_validation(monkeypatch):
    """Validation on few clips, and no sample videos."""
    measure = trainer.measure_validation_loss
    monkeypatch.setattr(
        trainer, "measure_validation_loss", lambda *given, **others: measure(*given, **others, clips=4)
    )
    monkeypatch.setattr(TrainingFolder, "_write_sample", lambda folder, run: None)


def small(network="wan", architecture=SMALL, **changes):
    settings = {"steps": 3, "batch": 2, "frames": 3, "autocast": "float32"} | changes
    return Recipe(network, "panorama", architecture=architecture, **settings)


@pytest.fixture(scope="module")
def prompts():
    return to_tensors(panorama.clips(range(4), 3), "cpu")


def test_a_trained_network_is_opened_with_everything_that_it_needs(tmp_path):
    file = loop.train(small(), tmp_path / "out", "cpu", progress=False)
    model = models.load(str(file))
    clean, prompts = to_tensors(panorama.clips([1, 2], 3), "cpu")
    again = wan.build(model.describe()).requires_grad_(False)  # with gradients, rounding is another
    again.load_state_dict(load_file(file))
    noisy, sigma = torch.randn(clean.shape), torch.full(clean.shape[:2], 0.7)
    expected = again.teacher_forced(clean, noisy, sigma, prompts)
    assert torch.equal(model.teacher_forced(clean, noisy, sigma, prompts), expected)
    said = traits(model)
    assert said.takes == "text" and not said.latent and said.source.videos == "panorama"
    assert said.sampling == traits(again).sampling and said.sampling.shift == 1


def test_the_loss_falls_and_every_weight_learns():
    run = trainer.Training(small(steps=40, warmup=5), build(small()), "cpu")
    before = {name: weight.clone() for name, weight in run.model.state_dict().items()}
    losses = [run.advance() for _ in range(40)]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    same = [name for name, weight in run.model.named_parameters() if torch.equal(weight, before[name])]
    # A bias of keys shifts all scores of a query alike, so the softmax does not depend on it.
    assert not [name for name in same if not name.endswith("to_k.bias")]


def test_the_prompt_changes_what_is_predicted(prompts):
    clean, text = prompts
    run = trainer.Training(small(), build(small()), "cpu")
    for _ in range(3):
        run.advance()
    noisy, sigma = torch.randn(clean.shape), torch.full(clean.shape[:2], 0.7)
    with torch.no_grad():
        found = [run.model.teacher_forced(clean, noisy, sigma, given) for given in (text, text.flip(0))]
    assert not torch.allclose(*found)


def test_prompts_are_dropped_as_often_as_the_recipe_says(prompts):
    _, text = prompts
    for share, dropped in ((0.0, 0), (1.0, len(text))):
        run = trainer.Training(small(condition_dropout=share), build(small()), "cpu")
        drawn = run.draw_conditions(text, torch.Generator().manual_seed(0))
        assert drawn is not None and int((drawn == 0).all(dim=(1, 2)).sum()) == dropped


def test_a_short_prompt_is_padded_before_some_are_dropped(prompts):
    clean, text = prompts
    run = trainer.Training(small(), build(small()), "cpu")
    run.model.null_condition = torch.zeros(3, text.shape[2])
    drawn = run.draw_conditions(text, torch.Generator().manual_seed(3))
    assert drawn is not None and drawn.shape == (len(text), 3, text.shape[2]) and not drawn[:, 1:].any()


def test_a_dense_network_reads_prompts_too():
    chosen = small("dense", {"layers": 2, "d_model": 24, "heads": 2, "rope_axes": (4, 4, 4)})
    model = build(chosen)
    assert traits(model).takes == "text"
    assert trainer.Training(chosen, model, "cpu").advance() > 0


def test_videos_without_prompts_are_refused():
    with pytest.raises(ValueError, match="a wan network reads prompts"):
        build(Recipe("wan", "tiles", architecture=SMALL))


def test_recomputing_blocks_changes_no_gradient():
    gradients = []
    for recompute in (False, True):
        run = trainer.Training(small(recompute=recompute), build(small(recompute=recompute)), "cpu")
        run.compute_loss().backward()
        gradients.append([weight.grad for weight in run.model.parameters()])
    for kept, recomputed in zip(*gradients, strict=True):
        assert_same(kept, recomputed, bound=rounding(torch.float32, 24, 2, kept))


def test_a_file_in_wans_own_names_gives_the_same_network(tmp_path):
    model = module_of(build(small())).requires_grad_(False)
    file = wan.write_released(model, tmp_path / "teacher_forcing" / "wan.pt")
    weights = torch.load(file, weights_only=True)["generator_ema"]
    assert weights.keys() == {f"model.{name}" for name in tiny_wan.original(model)}
    said = {"height": 20, "width": 20, "heads": 2, "text_tokens": 1}
    again = models.load(str(file), **said)
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name]), name
    clean, text = to_tensors(panorama.clips([1], 3), "cpu")
    noisy, sigma = torch.randn(clean.shape), torch.full(clean.shape[:2], 0.7)
    passes = (network.teacher_forced(clean, noisy, sigma, text) for network in (model, again))
    assert torch.equal(*passes)


def test_a_recipe_separates_a_trained_network_and_distils_its_decoder(tmp_path):
    dense = loop.train(small(), tmp_path / "dense", "cpu", progress=False)
    parts = {"encoder_layers": 2, "decoder_layers": 2, "head": 1}
    split = small("separated", parts, initial=str(dense), noise_draws=2)
    for how in ({}, {"fusion": "prefix", "query": "learned"}):
        chosen = replace(split, architecture=parts | how)
        run = trainer.Training(chosen, build(chosen), "cpu")
        assert run.model.training and run.advance() > 0
        assert run.model.how.fusion == how.get("fusion", "residual")
    for wrong, said in (
        ({"depth": 3}, "encoder_layers, decoder_layers"),
        (parts | {"fusion": "add"}, "fusion residual, prefix, token_concat, got 'add'"),
        (parts | {"head": 2}, "the head fewer"),
    ):
        with pytest.raises(ValueError, match=said):
            build(replace(split, architecture=wrong))
    with pytest.raises(ValueError, match="initial="):
        build(replace(split, initial=""))
    with pytest.raises(ValueError, match="digits has"):
        build(replace(split, videos="digits"))


def test_the_control_trains_the_initial_model_on_as_the_fine_tune_does(tmp_path):
    dense = loop.train(small(), tmp_path / "dense", "cpu", progress=False)
    parts = {"encoder_layers": 2, "decoder_layers": 2, "head": 1}
    tuning = small("separated", parts, initial=str(dense), noise_draws=2, steps=2)
    control = tuning.as_control()
    assert (control.steps, control.learning_rate, control.batch) == (2, tuning.learning_rate, 2)
    model = build(control)
    before = load_file(dense)
    assert all(torch.equal(weight, before[name]) for name, weight in module_of(model).state_dict().items())
    file = loop.train(control, tmp_path / "control", "cpu", progress=False)
    again = models.load(str(file))
    assert type(again) is type(models.load(str(dense))) and again.source.metadata["network"] == "wan"
    assert any(not torch.equal(weight, before[name]) for name, weight in load_file(file).items())
    for wrong, said in (({"initial": ""}, "initial="), ({"architecture": {"layers": 3}}, "as it is")):
        with pytest.raises(ValueError, match=said):
            build(replace(control, **wrong))


def test_a_file_of_half_precision_is_opened_in_single_precision(tmp_path):
    model = build(small())
    file = tmp_path / "half.safetensors"
    metadata = {"network": "wan", "videos": "panorama", "config": model.describe()}
    write(file, {name: weight.half() for name, weight in model.state_dict().items()}, metadata)
    again = models.load(str(file))
    assert {weight.dtype for weight in again.state_dict().values()} == {torch.float32}
