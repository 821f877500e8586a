"""Training: the loss falls, and stopping, being killed and going on again leave no trace in the weights."""

import csv
import os
import re
import shutil
import signal
from dataclasses import replace
from functools import partial

import pytest
import tiny
import torch
from bounds import assert_same, rounding
from safetensors.torch import load_file

from framelens import models, videos
from framelens.diffusion.loss import flow_matching_loss
from framelens.diffusion.schedule import add_noise
from framelens.models import dense, scd
from framelens.training import __main__ as command
from framelens.training import loop, trainer
from framelens.training.averaging import averaged_weights
from framelens.training.build import build
from framelens.training.recipes import RECIPES, RELEASED, Recipe, recipe
from framelens.training.state import TrainingFolder
from framelens.videos import worlds
from framelens.videos.worlds import tiles

STEPS = 7


VALIDATION = partial(trainer.measure_validation_loss, clips=4)
"""Fewer clips than in earnest, but all noise levels."""
SEPARATED = scd.Config(**tiny.SHAPE, encoder_layers=1, decoder_layers=1, fusion="prefix")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """A preset for tests, a short validation, and no sample videos."""
    monkeypatch.setitem(dense.PRESETS, "test", tiny.config())
    monkeypatch.setitem(scd.PRESETS, "test", SEPARATED)
    monkeypatch.setattr(trainer, "measure_validation_loss", VALIDATION)
    monkeypatch.setattr(TrainingFolder, "_write_sample", lambda folder, run: None)


def short(**changes):
    """A recipe of a few steps whose saves, validations and samples fall on different steps."""
    settings = {
        "steps": STEPS,
        "batch": 2,
        "frames": 3,
        "save_every": 2,
        "keep_every": 3,
        "sample_every": 1000,
    }
    return Recipe("dense", "tiles", "test", **{**settings, **changes})


def separated(**changes):
    """The same for a separated network."""
    return replace(short(**changes), network="scd")


def train(out, chosen=None, **changes):
    return loop.train(chosen or short(**changes), out, "cpu", progress=False)


def at_step(monkeypatch, step, act):
    """Lets `act` happen in the middle of that optimiser step, once."""
    advance, todo = trainer.Training.advance, [act]

    def advance_and_act(run):
        if run.step == step and todo:
            todo.pop()()
        return advance(run)

    monkeypatch.setattr(trainer.Training, "advance", advance_and_act)


def same_weights(first, second):
    first, second = load_file(first), load_file(second)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def rows(out):
    with open(out / "log.csv") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a training that nothing interrupted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(dense.PRESETS, "test", tiny.config())
        patch.setattr(trainer, "measure_validation_loss", VALIDATION)
        out = tmp_path_factory.mktemp("whole")
        train(out)
    return out


@pytest.mark.slow
def test_a_training_leaves_weights_checkpoints_log_and_sample(whole):
    files = {str(file.relative_to(whole)) for file in whole.rglob("*") if file.is_file()}
    kept = {f"checkpoints/step-{step:06d}.safetensors" for step in (0, 3, 6, 7)}
    assert files == kept | {"model.safetensors", "state.pt", "log.csv", "samples/step-000007.gif"}
    assert [int(row["step"]) for row in rows(whole)] == [0, 3, 6, 7]
    assert same_weights(whole / "model.safetensors", whole / "checkpoints" / "step-000007.safetensors")


@pytest.mark.slow
def test_what_was_trained_can_be_loaded_and_says_how_it_was_made(whole):
    model = models.load(str(whole))
    training = model.source.metadata["training"]
    assert model.geometry.height == 20 and model.null_condition == worlds.load("tiles").CONDITIONS
    assert Recipe(**training["recipe"]) == short() and training["step"] == STEPS
    assert training["validation"]["loss"] == pytest.approx(float(rows(whole)[-1]["loss"]))
    assert models.label(str(whole)) == whole.name


@pytest.mark.slow
def test_checkpoints_tell_the_validation_of_their_own_step(whole):
    for row in rows(whole):
        kept = models.load(str(whole / "checkpoints" / f"step-{int(row['step']):06d}.safetensors"))
        training = kept.source.metadata["training"]
        assert training["step"] == training["validation"]["step"] == int(row["step"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "signal_number"),
    [(0, signal.SIGINT), (2, signal.SIGINT), (3, signal.SIGTERM), (STEPS - 1, signal.SIGINT)],
)
def test_a_stopped_training_goes_on_to_the_same_weights(tmp_path, whole, monkeypatch, step, signal_number):
    before = signal.getsignal(signal_number)
    at_step(monkeypatch, step, lambda: os.kill(os.getpid(), signal_number))
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path)
    assert signal.getsignal(signal_number) is before
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == step + 1, (
        "the step is finished first"
    )
    train(tmp_path)
    assert same_weights(tmp_path / "model.safetensors", whole / "model.safetensors")
    assert [row["loss"] for row in rows(tmp_path)] == [row["loss"] for row in rows(whole)]


def killed():
    # What a killed process leaves on disk is what it left there before.
    raise SystemExit(-9)


@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 4, 5])
def test_a_killed_training_goes_on_to_the_same_weights(tmp_path, whole, monkeypatch, step):
    at_step(monkeypatch, step, killed)
    with pytest.raises(SystemExit):
        train(tmp_path)
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == step - step % 2
    train(tmp_path)
    assert same_weights(tmp_path / "model.safetensors", whole / "model.safetensors")
    steps = [row["step"] for row in rows(tmp_path)]
    assert steps == ["0", "3", "6", "7"], "no step is logged twice"


@pytest.mark.slow
def test_a_process_that_dies_while_saving_leaves_the_last_state(tmp_path, whole, monkeypatch):
    save = torch.save

    def die_at_step_four(state, file):
        if state["step"] == 4:
            file.write(b"half")
            raise SystemExit(-9)
        save(state, file)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", die_at_step_four)
        with pytest.raises(SystemExit):
            train(tmp_path)
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == 2
    assert not list(tmp_path.glob(".*"))
    train(tmp_path)
    assert same_weights(tmp_path / "model.safetensors", whole / "model.safetensors")


@pytest.mark.parametrize("kept", ["with its state", "without its state"])
def test_a_finished_training_is_left_as_it_is(tmp_path, whole, monkeypatch, kept):
    again = tmp_path / "again"
    shutil.copytree(whole, again)
    if kept == "without its state":
        (again / "state.pt").unlink()
    monkeypatch.setattr(loop, "build", lambda _: pytest.fail("built a network"))
    before = {file: file.stat().st_mtime_ns for file in again.rglob("*")}
    assert train(again) == again / "model.safetensors"
    assert {file: file.stat().st_mtime_ns for file in again.rglob("*")} == before


def test_weights_without_a_state_are_of_one_recipe_too(tmp_path, whole):
    again = tmp_path / "again"
    shutil.copytree(whole, again)
    (again / "state.pt").unlink()
    with pytest.raises(ValueError, match=f"was trained with steps={STEPS}, not 9"):
        train(again, steps=9)
    tiny.checkpoint(again / "model.safetensors")  # by another program
    with pytest.raises(ValueError, match="model.safetensors is not the result of a training"):
        train(again)
    assert not (again / "state.pt").exists()


@pytest.mark.slow
def test_a_seed_decides_the_weights(tmp_path, whole):
    train(tmp_path, seed=1)
    assert not same_weights(tmp_path / "model.safetensors", whole / "model.safetensors")


def test_the_folder_of_another_recipe_is_refused_and_left_alone(tmp_path):
    train(tmp_path, steps=1)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    with pytest.raises(ValueError, match=r"learning_rate=0\.002.*\b0\.1\b.*--out"):
        train(tmp_path, steps=1, learning_rate=0.1)
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before


@pytest.mark.parametrize("damage", ["empty", "cut", "text", "another file of torch"])
def test_a_damaged_state_is_named(tmp_path, damage):
    train(tmp_path, steps=1)
    state = tmp_path / "state.pt"
    if damage == "another file of torch":
        torch.save({"weights": torch.zeros(2)}, state)
    else:
        content = state.read_bytes()
        state.write_bytes({"empty": b"", "cut": content[: len(content) // 2], "text": b"step 3\n"}[damage])
    with pytest.raises(ValueError) as error:
        train(tmp_path, steps=1)
    assert str(error.value).startswith(str(state)) and "\n" not in str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize("muon", [True, False])
def test_the_loss_falls(tmp_path, muon):
    settings = {"steps": 30, "batch": 4, "warmup": 5, "save_every": 100, "keep_every": 100, "ema": 0.8}
    train(tmp_path, short(**settings, muon=muon, learning_rate=5e-3))
    first, last = (float(row["loss"]) for row in rows(tmp_path))
    assert last < 0.9 * first


def test_every_weight_is_trained_by_one_optimiser():
    network = build(short())
    for muon in (True, False):
        optimisers = trainer.Training(short(muon=muon), network, "cpu").optimizers
        trained = [weight for o in optimisers for group in o.param_groups for weight in group["params"]]
        assert {id(weight) for weight in trained} == {id(weight) for weight in network.parameters()}
        assert len(trained) == len(list(network.parameters())) and len(optimisers) == 1 + muon


def test_a_decoder_may_learn_faster_and_no_weight_is_forgotten():
    for muon in (True, False):
        run = trainer.Training(separated(muon=muon, decoder_rate=2.0), build(separated()), "cpu")
        decoder = {id(weight) for name, weight in run.model.named_parameters() if name.startswith("decoder.")}
        trained = []
        for optimizer in run.optimizers:
            slowest = min(group["peak"] for group in optimizer.param_groups)
            for group in optimizer.param_groups:
                trained += group["params"]
                is_decoder = {id(weight) in decoder for weight in group["params"]}
                assert is_decoder == {group["peak"] == 2 * slowest}
        assert {id(weight) for weight in trained} == {id(weight) for weight in run.model.parameters()}


def test_recomputing_blocks_changes_memory_and_not_gradients():
    gradients = []
    for recompute in (False, True):
        run = trainer.Training(separated(recompute=recompute), build(separated(recompute=recompute)), "cpu")
        run.compute_loss().backward()
        gradients.append([weight.grad for weight in run.model.parameters()])
    for kept, recomputed in zip(*gradients, strict=True):
        assert_same(kept, recomputed, bound=rounding(torch.float32, 48, 4, kept))


def test_a_share_of_the_history_may_be_seen_noisy():
    clean, noise = torch.zeros(4, 500, 1, 2, 2), torch.ones(4, 1000, 1, 2, 2)
    sigma = torch.full((4, 1000), 0.25)
    seen = trainer.mix_history(clean, noise, sigma, 0.3, torch.Generator().manual_seed(0))
    assert set(seen.unique().tolist()) == {0.0, 0.25}
    assert (seen == 0).float().mean() == pytest.approx(0.3, abs=0.05)
    assert trainer.mix_history(clean, noise, sigma, 1.0, torch.Generator()) is clean
    runs = [trainer.Training(separated(clean_history=share), build(separated()), "cpu") for share in (1, 0.5)]
    with torch.no_grad():
        for run in runs:
            for weight in run.model.parameters():  # open gates
                weight += 0.1
    assert runs[0].compute_loss() != runs[1].compute_loss()


def test_validation_is_without_the_noise_of_training():
    run = trainer.Training(separated(), build(separated()), "cpu")
    with averaged_weights(run.model, run.average) as model:
        assert not model.training
    assert run.model.training
    run.validate()
    run.validate()
    assert run.log[0]["loss"] == run.log[1]["loss"]


def test_training_can_go_on_from_another_model_with_layers_cut_off(tmp_path):
    first = tiny.checkpoint(tmp_path / "first.safetensors")
    whole, cut = (
        trainer.Training(chosen, build(chosen), "cpu")
        for chosen in (short(initial=str(first)), short(initial=str(first), cut_from=1))
    )
    for name, weight in load_file(first).items():
        assert torch.equal(weight, whole.model.state_dict()[name])
    assert whole.compute_loss() != cut.compute_loss()
    cut.validate()
    whole.validate()
    assert cut.log[0]["loss"] != whole.log[0]["loss"]
    cut.advance()


def test_a_start_or_a_cut_that_does_not_fit_is_refused(tmp_path):
    apart = loop.train(separated(), tmp_path / "apart", "cpu", progress=False)
    with pytest.raises(ValueError):
        build(short(initial=str(apart)))
    whole = train(tmp_path / "whole")
    with pytest.raises(ValueError):
        build(separated(initial=str(whole), architecture={"mlp_width": 8}))
    with pytest.raises(ValueError, match="cut_from=0"):
        build(separated(cut_from=0))
    with pytest.raises(ValueError, match=r"cut_from=2.*\b0 .*\b1\b"):
        build(short(cut_from=2))


def test_the_released_recipe_is_one_of_ours():
    released = recipe("scd-tiles", **RELEASED)
    assert (released.decoder_rate, released.noise_draws, released.ema) == (2.0, 2, 0.9999)
    trainer.Training(replace(separated(), **RELEASED | {"batch": 1}), build(separated()), "cpu").advance()


def test_the_average_follows_the_weights(tmp_path):
    run = trainer.Training(short(ema=0.5), build(short()), "cpu")
    average = {name: weight.clone() for name, weight in run.average.items()}
    for step in range(3):
        run.advance()
        decay = min(0.5, (2 + step) / (11 + step))
        for name, weight in run.model.state_dict().items():
            average[name] = decay * average[name] + (1 - decay) * weight
            bound = rounding(torch.float32, 1, 1, weight)
            assert_same(run.average[name], average[name], bound=bound)
    own = {name: weight.clone() for name, weight in run.model.state_dict().items()}
    with averaged_weights(run.model, run.average) as model:
        assert all(torch.equal(weight, run.average[name]) for name, weight in model.state_dict().items())
    assert all(torch.equal(weight, own[name]) for name, weight in run.model.state_dict().items())


def test_the_learning_rate_rises_stays_and_falls():
    run = trainer.Training(short(steps=100, warmup=10, decay_share=0.2), build(short()), "cpu")
    rates = []
    for run.step in range(100):
        run._set_learning_rate()
        rates.append(run.optimizers[0].param_groups[0]["lr"] / run.recipe.learning_rate)
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rates[10:81] == pytest.approx([1] * 71) and rates[-1] == pytest.approx(0.05)


def test_no_clip_of_validation_is_ever_trained_on(monkeypatch):
    drawn, clips = [], tiles.clips

    def record(seeds, frames):
        drawn.extend(seeds := list(seeds))
        return clips(seeds, frames)

    monkeypatch.setattr(tiles, "clips", record)
    for seed, step in ((0, 0), (0, 10**6), (99, 1_666_353), (12345, 7)):
        run = trainer.Training(short(seed=seed, batch=6), build(short()), "cpu")
        run.step = step
        run.compute_loss()
    assert len(drawn) == 24 and 0 <= min(drawn) and max(drawn) < videos.VALIDATION_SEED


def test_a_loss_that_is_not_a_number_stops_the_training(tmp_path):
    with pytest.raises(ValueError, match=r"(nan|inf) .*\d+"):
        train(tmp_path, steps=200, learning_rate=1e30, muon=False, warmup=1, keep_every=1000, save_every=1000)


@pytest.mark.parametrize(("keep_every", "save_every"), [(1, 1), (1000, 1)])
def test_a_training_that_diverges_keeps_what_was_saved_before(tmp_path, keep_every, save_every):
    """Its last update is made, but nothing is saved of it: the loss after it is not finite."""
    settings = {"learning_rate": 1e30, "muon": False, "warmup": 1, "decay_share": 0.0}
    with pytest.raises(ValueError, match=r"loss is (nan|inf) at step 1; .*saved .*learning_rate.*--out"):
        train(tmp_path, **settings, keep_every=keep_every, save_every=save_every)
    saved = torch.load(tmp_path / "state.pt", weights_only=True)
    assert saved["step"] == 0 and all(weight.isfinite().all() for weight in saved["model"].values())
    assert not (tmp_path / "model.safetensors").exists()
    with pytest.raises(ValueError, match="at step 1"):
        train(tmp_path, **settings, keep_every=keep_every, save_every=save_every)


def test_the_last_update_of_a_training_may_not_diverge_either(tmp_path):
    """No loss is computed after it but that of the validation."""
    with pytest.raises(ValueError, match=r"validation loss is (nan|inf) at step 1"):
        train(tmp_path, steps=1, learning_rate=1e30, muon=False, warmup=1, ema=0.0)
    assert not (tmp_path / "model.safetensors").exists()


def test_recipes_name_things_that_exist():
    for name in RECIPES:
        device = "cpu" if recipe(name).initial else "meta"
        with torch.device(device):
            network = build(recipe(name), device)
        assert network.geometry.channels == worlds.load(recipe(name).videos).SHAPE[0]
    with pytest.raises(ValueError, match="'dense'.*dense-tiles, dense-digits"):
        recipe("dense")


# The loss


def oracle(error):
    """A model that predicts the true velocity, a little off."""

    def teacher_forced(self, clean, noisy, sigma, cond=None):
        return (noisy - clean) / sigma[..., None, None, None] + error

    return tiny.said(teacher_forced=teacher_forced)


@pytest.mark.usefixtures("float64")
def test_the_loss_is_the_mean_squared_error_of_the_velocity_by_frame():
    clean, noise = tiny.draw(2, 3, 3, 8, 8), tiny.draw(2, 3, 3, 8, 8, seed=1)
    sigma = torch.full((2, 3), 0.5)
    assert flow_matching_loss(oracle(0.0), clean, noise, sigma).max() < 1e-24
    assert_same(flow_matching_loss(oracle(0.3), clean, noise, sigma), torch.full((2, 3), 0.09))


@pytest.mark.usefixtures("float64")
def test_a_new_network_has_the_loss_of_predicting_nothing():
    network, clean, noise = (
        dense.build(tiny.config()),
        tiny.draw(1, 2, 3, 8, 8),
        tiny.draw(1, 2, 3, 8, 8, seed=1),
    )
    sigma = torch.tensor([[0.2, 0.9]])
    expected = (noise - clean).square().mean((2, 3, 4))
    assert_same(flow_matching_loss(network, clean, noise, sigma), expected)
    assert add_noise(clean, noise, sigma).shape == clean.shape


def test_the_state_of_a_run_is_all_that_is_needed(tmp_path):
    folder, first = (
        TrainingFolder(tmp_path, short()),
        trainer.Training(short(), build(short()), "cpu"),
    )
    for _ in range(3):
        first.advance()
    folder.save_state(first)
    torch.manual_seed(999)
    second = trainer.Training(short(), dense.build(first.model.config), "cpu")
    folder.resume(second)
    assert first.advance() == second.advance()
    assert all(torch.equal(weight, second.average[name]) for name, weight in first.average.items())


def test_settings_of_recipe_and_network_can_be_given_by_name():
    options = ["--model", "scd-tiles", "--released", "--steps", "7", "--set"]
    chosen = command._recipe(
        command.parser().parse_args([*options, "fusion=add", "learning_rate=1", "muon=true"])
    )
    assert (chosen.architecture["fusion"], chosen.learning_rate, chosen.muon) == ("add", 1.0, True)
    assert (chosen.steps, chosen.decoder_rate, chosen.videos) == (7, 2.0, "tiles")
    assert recipe("scd-tiles").architecture["fusion"] == "prefix", "the shipped recipe stays as it is"


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (["fusion"], "--set .*'fusion'"),
        (["muon=3"], "muon .*true.*false.*3"),
        (["fusion=sum"], "'sum'"),
        (["encoder_layers=0"], r"\b0 .*\b4\b"),
        (["depth=3"], "scd .*depth"),
    ],
)
def test_a_setting_that_does_not_fit_is_one_line(tmp_path, capsys, settings, line):
    assert command.main(["--model", "scd-tiles", "--out", str(tmp_path / "run"), "--set", *settings]) == 2
    error = capsys.readouterr().err
    assert re.search(line, error) and error.count("\n") == 1
