"""The estimated memory of a training is what torch keeps; the command says whether it fits and what would."""

import re
from dataclasses import replace

import pytest
import tiny
import torch
import torch.nn.functional as F
from torch.autograd.graph import saved_tensors_hooks

from framelens.__main__ import find_command, main
from framelens.models import dense, scd
from framelens.models.cost.operations import parameters
from framelens.models.cost.presets import PRESETS, shape_of_released
from framelens.models.cost.shape import VALUE_BYTES, shape_of
from framelens.models.cost.training import TrainingStep, activation_bytes
from framelens.models.parts import history
from framelens.models.parts.fusion import FUSIONS
from framelens.models.parts.scd_config import ASKING
from framelens.training.build import build
from framelens.training.estimate import alternatives, parse_size, parser, plan_step
from framelens.training.recipes import recipe
from framelens.training.trainer import Training

BATCH, FRAMES = 2, 5
ERROR = 0.03
"""The largest relative error of the arithmetic: it leaves out what is of the size of a vector per frame."""
KINDS = [None, *FUSIONS, "prefix, noise", "residual, noise", "prefix, frame", "add, learned"]
CONDITIONS = {
    "actions": {"conditions": 5},
    "prompt": {"text_tokens": 7, "text_width": 16},
    "window": {"window": 2, "sink": 1},
}


def network(kind, **changes):
    """A dense network for None, else a separated one of that fusion, of the tiny presets' width."""
    if kind is None:
        return dense.build(dense.config("tiny", layers=2, **changes)).train()
    fusion, _, query = kind.partition(", ")
    layers = {"encoder_layers": 2, "decoder_layers": 2}
    layers |= ASKING | {"query": query, "query_layer": int(query == "learned")} if query else {}
    return scd.build(scd.config("tiny", fusion=fusion, **layers, **changes)).train()


def condition(config):
    if config.text_tokens:
        return torch.randn(BATCH, config.text_tokens, config.text_width)
    return torch.zeros(BATCH, FRAMES, dtype=torch.long) if config.conditions else None


def kept_bytes(model, draws, dtype):
    """Bytes of all tensors that the forward pass keeps for the backward pass, the weights aside."""
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage  # held, so that no address is used twice
        return tensor

    clean, noisy = torch.randn(BATCH, FRAMES, 3, 20, 20), torch.randn(BATCH, draws * FRAMES, 3, 20, 20)
    sigma = torch.rand(BATCH, draws * FRAMES)
    with saved_tensors_hooks(pack, lambda tensor: tensor):
        with torch.autocast("cpu", getattr(torch, dtype), enabled=dtype != "float32"):
            velocity = model.teacher_forced(clean, noisy, sigma, condition(model.config))
        velocity.float().square().mean()
    return sum(storage.nbytes() for storage in kept.values())


def estimate(model, draws, dtype="float32", **changes):
    shape = shape_of(model.config, batch=BATCH, value_bytes=VALUE_BYTES[dtype])
    step = TrainingStep(shape, FRAMES, draws, **{"fused": False} | changes)
    return activation_bytes(step) + step.bytes().get("weights as the pass computes", 0)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("kind", "changes"),
    [(kind, "plain") for kind in KINDS] + [(kind, more) for kind in (None, "prefix") for more in CONDITIONS],
)
@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")
def test_the_activations_are_those_that_torch_keeps(kind, changes, dtype):
    model, draws = network(kind, **CONDITIONS.get(changes, {})), 1 if kind is None else 2
    assert estimate(model, draws, dtype) == pytest.approx(kept_bytes(model, draws, dtype), rel=ERROR)


@pytest.mark.parametrize("kind", [None, "prefix", "token_concat", "residual, noise"])
def test_a_fused_kernel_keeps_no_maps(kind, monkeypatch):
    def attend(self, layer, q, k, v):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask(q.device))

    before = estimate(network(kind), 1)
    for one in (history.CleanThenNoisy, history.FrameCausal):  # as on a GPU
        monkeypatch.setattr(one, "attend", attend)
    monkeypatch.setattr(history, "_attention", F.scaled_dot_product_attention)
    model = network(kind)
    found = estimate(model, 1, fused=True)
    assert found == pytest.approx(kept_bytes(model, 1, "float32"), rel=ERROR) and found < before


def test_recomputed_blocks_keep_their_inputs_alone():
    model = network(None)
    whole, again = (estimate(model, 1, recompute=recompute) for recompute in (False, True))
    deep = estimate(dense.build(dense.config("tiny", layers=12)), 1, recompute=True)
    stream = 2 * BATCH * FRAMES * 25 * 128 * 4
    assert again < whole and deep - again == pytest.approx(10 * stream, rel=0.3)


@pytest.mark.parametrize("muon", [True, False])
@pytest.mark.parametrize("name", ["dense-tiles", "scd-tiles-past", "split-tiles-few"])
def test_weights_gradients_optimiser_and_average_are_those_of_a_training(name, muon):
    chosen = recipe(name, initial="", teacher="", muon=muon, batch=1, frames=2, noise_draws=1)
    training = Training(chosen, build(chosen), "cpu")
    training.advance()
    shape = shape_of(training.model.config, batch=1)
    found = TrainingStep(shape, 2, muon=muon, decoder_only=bool(chosen.train_only)).bytes()
    weights = list(training.model.parameters())
    state = [
        value
        for optimiser in training.optimizers
        for values in optimiser.state.values()
        for value in values.values()
        if isinstance(value, torch.Tensor) and value.ndim
    ]
    trained = [weight for weight in weights if weight.requires_grad]
    for what, tensors in {
        "weights": weights, "gradients": trained, "optimiser": state, "average": training.average.values()
    }.items():  # fmt: skip
        assert found[what] == pytest.approx(sum(each.nbytes for each in tensors), rel=1e-3), what


def test_cards_divide_what_is_kept_and_lora_trains_little():
    step = TrainingStep(replace(shape_of_released("wan-1.3b"), batch=8, value_bytes=2), 21, recompute=True)
    one, four = step.bytes(), replace(step, gpus=4).bytes()
    for name in ("weights", "gradients", "optimiser", "average"):
        assert four[name] == pytest.approx(one[name] / 4, abs=1)
    assert four["activations"] < 0.3 * one["activations"]
    low = replace(step, lora=16)
    assert low.trained < 0.02 * step.trained and low.bytes()["weights"] == one["weights"] + 4 * low.trained
    assert low.bytes()["gradients"] == 4 * low.trained and low.bytes()["optimiser"] == 8 * low.trained


def test_every_alternative_fits_and_a_smaller_one_is_not_passed_over():
    step = TrainingStep(replace(shape_of_released("wan-14b"), batch=8, value_bytes=2), 21)
    memory = 80 * 10**9
    found = dict(alternatives(step, memory))
    assert found and sum(step.bytes().values()) > memory
    assert all(sum(other.bytes().values()) <= memory for other in found.values())
    (cards,) = [other for name, other in found.items() if "--gpus" in name]
    assert sum(replace(cards, gpus=cards.gpus // 2).bytes().values()) > memory


@pytest.mark.parametrize("name", PRESETS)
def test_a_released_network_is_estimated_without_weights(name, capsys):
    assert main(f"estimate --preset {name} --train --memory 96GB --batch 8".split()) == 0
    out = capsys.readouterr().out
    sizes = [float(line.split()[0]) for line in out.splitlines() if re.search(r"GB  (?!-)", line)]
    assert sum(sizes[:-1]) == pytest.approx(sizes[-1], abs=0.05)
    assert "It does not fit a card of 96.0 GB" in out and "--gpus" in out


def test_a_recipe_and_its_checkpoint_are_estimated_alike(tmp_path, capsys):
    assert main("estimate --train --model dense-tiles --memory 16GB".split()) == 0
    of_recipe = capsys.readouterr().out
    assert "It fits a card of 16.0 GB." in of_recipe
    path = tiny.checkpoint(tmp_path / "tiny.safetensors")
    assert main(["estimate", "--train", "--model", str(path), "--batch", "6", "--frames", "10"]) == 0
    assert "6 clips of 10 frames" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "millions"),
    [("wan-panorama-more", "4.2"), ("split-wan-panorama", "5.3"), ("dense-tiles-more", "3.7")],
)
def test_a_recipe_that_trains_what_is_trained_already_is_estimated_from_its_initial_model(name, millions):
    step = plan_step(parser().parse_args(["--model", name]))
    assert f"{parameters(step.shape) / 1e6:.1f}" == millions
    initial = recipe(name).initial
    of_file = plan_step(parser().parse_args(["--model", initial])).shape
    assert (step.shape == of_file) == name.endswith("-more")


def test_a_separated_checkpoint_is_estimated():
    shape = plan_step(parser().parse_args(["--model", "split-wan-panorama-few"])).shape
    assert (shape.encoder_layers, shape.layers, shape.fusion) == (9, 6, "residual")


def test_sizes_have_units():
    assert parse_size("80GB") == 80 * 10**9 and parse_size("1.5 gib") == 3 * 2**29


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("--memory 80", "--memory is a size such as 80GB"),
        ("--memory 0GB", "--memory is a size"),
        ("--batch 0", "--batch must be from 1"),
        ("--batch 5 --gpus 2", "2 cards cannot share 5 clips"),
        ("--lora 0", "--lora must be from 1"),
        ("--model dense-tiles --preset wan-1.3b", "give one of them"),
        ("--preset wan-1.3b --set d_model=8", "d_model"),
        ("--set batch=3", "give --batch 3"),
        ("--set train_only=decoder", "no such part"),
        ("--model scd-tiles --set train_only=encoder", "train_only=encoder is not estimated"),
        ("--model no-such-model", "no-such-model"),
    ],
)
def test_what_cannot_be_estimated_gets_one_line(asked, said, capsys):
    assert main(["estimate", "--train", *asked.split()]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and error.startswith("framelens estimate --train: ")


def test_the_command_is_found_wherever_its_option_stands():
    assert find_command(["estimate", "--model", "x", "--train"]) == "estimate --train"
    assert find_command(["estimate", "--model", "x"]) == "estimate"
