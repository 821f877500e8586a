"""Distribution matching by self-forcing: its rollout, its gradient, its two scores, and when it stops."""

import csv
from dataclasses import replace

import pytest
import tiny
import torch
from safetensors.torch import load_file

from framelens import models
from framelens.diffusion.choose_sampling import choose_sampling
from framelens.diffusion.contract import module_of
from framelens.diffusion.distribution_matching import matching_gradient, matching_loss, sample_levels
from framelens.diffusion.sampler import fresh_noise, rollout
from framelens.diffusion.schedule import Sampling, sigma_grid
from framelens.models import dense, scd
from framelens.training import loop
from framelens.training.__main__ import main
from framelens.training.build import build
from framelens.training.estimate import main as estimate
from framelens.training.recipes import RECIPES, Recipe, recipe
from framelens.training.self_forcing import SelfForcing, require_unsaturated
from framelens.training.self_rollout import roll_out_to_exit
from framelens.training.state import TrainingFolder

FRAMES, GIVEN, STEPS = 3, 1, 3
KINDS = ["dense", "scd"]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    separated = scd.Config(
        **tiny.SHAPE, encoder_layers=1, decoder_layers=1, fusion="prefix", query="noise", start_token=False
    )
    monkeypatch.setitem(dense.PRESETS, "test", tiny.config())
    monkeypatch.setitem(scd.PRESETS, "test", separated)
    monkeypatch.setattr(TrainingFolder, "_write_sample", lambda folder, run: None)
    monkeypatch.setattr("framelens.training.self_forcing.VALIDATION_CLIPS", 2)


def teaching(network, **changes):
    settings = {
        "steps": 2, "batch": 2, "frames": FRAMES, "keep_every": 2, "muon": False, "learning_rate": 1e-2,
        "autocast": "float32",
    }  # fmt: skip
    return Recipe(network, "tiles", "test", **settings | changes)


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    """The checkpoints of trained networks by kind, each trained when it is first needed."""
    return {}


@pytest.fixture
def teacher(teachers, tmp_path_factory):
    """Gives the checkpoint of a trained network of that kind."""

    def give(network):
        if network not in teachers:
            out = tmp_path_factory.mktemp("teacher")
            teachers[network] = str(loop.train(teaching(network), out, "cpu", progress=False))
        return teachers[network]

    return give


def student_of(teacher, network="scd", **changes):
    settings = {
        "objective": "dmd",
        "student_steps": STEPS,
        "learning_rate": 1e-3,
        "keep_every": 1,
        "beta1": 0.0,
    }
    return teaching(network, **{"initial": teacher, "teacher": teacher} | settings | changes)


def begin(chosen):
    return SelfForcing(chosen, build(chosen), "cpu")


def by_place(seed):
    return lambda x, frame, step: fresh_noise(x, seed, frame, step)


def passes_of(run, turn=0):
    """The passes of one generated clip, each with whether it is kept for a gradient."""
    seen = []
    run.generate(run.draw_turn(slice(None), turn), lambda at: seen.append((at, torch.is_grad_enabled())))
    return seen


# The loss


def test_the_loss_has_the_gradient_of_distribution_matching():
    generated = torch.randn(2, 3, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    fake, real = torch.randn_like(generated), torch.randn_like(generated)
    wanted = matching_gradient(generated.detach(), fake, real)
    matching_loss(generated.float(), fake, real).sum().backward()
    assert torch.allclose(generated.grad, wanted / generated[0].numel(), atol=1e-6)
    by_hand = (fake[1] - real[1]) / (generated[1] - real[1]).abs().mean()
    assert torch.allclose(wanted[1], by_hand)


def test_scores_that_agree_leave_the_student_as_it_is():
    generated, score = torch.randn(2, 3, 1, 4, 4, requires_grad=True), torch.randn(2, 3, 1, 4, 4)
    matching_loss(generated, score, score).sum().backward()
    assert torch.equal(generated.grad, torch.zeros_like(generated))
    assert torch.isfinite(matching_gradient(score, score + 1, score)).all()


def test_a_step_against_the_gradient_is_towards_the_real_score():
    generated, fake, real = torch.zeros(1, 1, 1, 2, 2), torch.zeros(1, 1, 1, 2, 2), torch.ones(1, 1, 1, 2, 2)
    assert (generated - 0.1 * matching_gradient(generated, fake, real) > 0).all()


def test_clips_are_compared_at_levels_that_are_neither_clean_nor_noise():
    levels = sample_levels(5000, 5.0, torch.Generator().manual_seed(0))
    assert levels.min() >= 0.02 and levels.max() <= 0.98
    even = sample_levels(5000, 1.0, torch.Generator().manual_seed(0))
    assert levels.mean() > even.mean() + 0.2 and abs(even.mean() - 0.5) < 0.02


# The rollout


@pytest.mark.parametrize("network", KINDS)
def test_with_the_last_step_as_the_exit_it_is_the_samplers_clip(teacher, network):
    model, noise, sigmas = models.load(teacher(network)), torch.randn(2, FRAMES, 3, 20, 20), sigma_grid(STEPS)
    cond, given = torch.ones(2, FRAMES, dtype=torch.long), torch.randn(2, GIVEN, 3, 20, 20)
    module_of(model).requires_grad_(True)
    own = roll_out_to_exit(model, noise, sigmas, STEPS - 1, by_place(5), cond, given)
    assert own.requires_grad
    sampled = rollout(model, noise, sigmas, cond, given, renoise=5)
    assert torch.allclose(own, sampled, atol=1e-5)


@pytest.mark.parametrize("network", KINDS)
def test_one_exit_step_is_shared_by_all_chunks_and_is_alone_differentiable(teacher, network):
    run = begin(student_of(teacher(network), network))
    exits = set()
    for turn in range(6):
        seen = passes_of(run, turn)
        denoised = [at for at, _ in seen if at.role == "denoise"]
        kept = [at for at, is_kept in seen if is_kept]
        last = {at.step for at in kept}
        assert len(last) == 1 and last == {max(at.step for at in denoised)}
        assert [at.frame for at in kept] == list(range(GIVEN, FRAMES))
        assert all(at.role == "denoise" for at in kept)
        assert len(denoised) == (FRAMES - GIVEN) * (last.copy().pop() + 1)
        assert sum(at.role == "encode" for at, _ in seen) >= FRAMES - 1
        exits |= last
    assert len(exits) > 1, "the exit step is drawn again each time"


def test_the_exit_step_depends_on_the_step_alone(teacher):
    run, again = begin(student_of(teacher("dense"), "dense")), begin(student_of(teacher("dense"), "dense"))
    assert run.draw_turn(slice(None), 3).exit_step == again.draw_turn(slice(0, 1), 3).exit_step
    whole, part = run.draw_turn(slice(None), 3), run.draw_turn(slice(1, 2), 3)
    assert torch.equal(whole.noise[1:], part.noise) and torch.equal(whole.sigma[1:], part.sigma)
    assert (whole.sigma == whole.sigma[:, :1]).all() and whole.sigma[0, 0] != whole.sigma[1, 0]


@pytest.mark.parametrize("network", KINDS)
def test_the_gradient_is_that_of_the_exit_passes_on_a_past_that_is_constant(teacher, network):
    """By another way: each chunk's exit pass alone, in a context that a separate rollout made."""
    chosen = student_of(teacher(network), network)
    run, alone = begin(chosen), begin(chosen)
    drawn = run.draw_turn(slice(None), 2)
    weight = torch.randn(2, FRAMES, 3, 20, 20)
    (run.generate(drawn) * weight).sum().backward()
    with torch.no_grad():
        clip = run.generate(drawn)
    grid, exit_step = alone.sampling.grid, drawn.exit_step
    for frame in range(GIVEN, FRAMES):
        with torch.no_grad():
            context = alone.model.start(2, drawn.cond)
            for before in range(frame):
                context = alone.model.encode(clip[:, before : before + 1], context)
            x = drawn.noise[:, frame : frame + 1]
            for step in range(exit_step):
                predicted = x - grid[step] * alone.model.denoise(x, grid[step].expand(2), context)
                fresh = fresh_noise(x, drawn.seed, frame, step)
                x = (1 - grid[step + 1]) * predicted + grid[step + 1] * fresh
        predicted = x - grid[exit_step] * alone.model.denoise(x, grid[exit_step].expand(2), context)
        (predicted * weight[:, frame : frame + 1]).sum().backward()
    found = {name: each.grad for name, each in run.model.named_parameters() if each.grad is not None}
    assert found and any(grad.abs().max() > 0 for grad in found.values())
    for name, each in alone.model.named_parameters():
        assert (each.grad is None) == (name not in found), name
        assert each.grad is None or torch.allclose(found[name], each.grad, atol=1e-4, rtol=1e-3), name


def test_the_past_is_what_the_student_generated(teacher):
    """A memory that is never written, as in a public trainer, would make a frame ignore the one before."""
    run = begin(student_of(teacher("dense"), "dense"))
    drawn = run.draw_turn(slice(None), 0)
    other = drawn.noise.clone()
    other[:, GIVEN] += 1
    clips = [run.generate(each)[:, GIVEN + 1 :] for each in (drawn, drawn._replace(noise=other))]
    assert not torch.allclose(*clips)


@pytest.mark.parametrize("network", KINDS)
def test_arithmetic_in_bfloat16_loses_no_gradient(teacher, network):
    """Weights that a pass without gradients has cast must not be used by the exit step."""
    found = {}
    for arithmetic in ("float32", "bfloat16"):
        run = begin(student_of(teacher(network), network, autocast=arithmetic))
        run.fake.load_state_dict({name: 1.1 * each for name, each in run.fake.state_dict().items()})
        run.backpropagate(slice(None))
        weights = run.model.named_parameters()
        found[arithmetic] = {
            name for name, each in weights if each.grad is not None and each.grad.abs().max() > 0
        }
    assert found["float32"] and found["float32"] == found["bfloat16"]


# The two scores


def test_the_fake_score_takes_five_steps_for_each_one_of_the_student(teacher, monkeypatch):
    run, order = begin(student_of(teacher("dense"), "dense")), []
    step_fake, step_student = run.fake_optimizer.step, run.optimizers[0].step
    monkeypatch.setattr(run.fake_optimizer, "step", lambda: (order.append("fake"), step_fake()))
    monkeypatch.setattr(run.optimizers[0], "step", lambda: (order.append("student"), step_student()))
    for _ in range(2):
        run.advance()
    assert order == (["fake"] * 5 + ["student"]) * 2


def test_the_real_score_is_the_teacher_and_stays_it(teacher, tmp_path):
    """In a public trainer it was a copy of the student."""
    other = str(
        loop.train(teaching("dense", seed=3, learning_rate=2e-2), tmp_path / "other", "cpu", progress=False)
    )
    run = begin(student_of(teacher("dense"), "dense", initial=other))
    before = {name: each.clone() for name, each in run.fake.state_dict().items()}
    run.advance()
    true = load_file(teacher("dense"))
    real, fake, own = (each.state_dict() for each in (run.teacher, run.fake, run.model))
    assert all(torch.equal(real[name], true[name]) and torch.equal(before[name], true[name]) for name in true)
    assert any(not torch.equal(fake[name], true[name]) for name in true)
    assert any(not torch.allclose(own[name], true[name], atol=1e-3) for name in true)
    assert not any(each.requires_grad for each in run.teacher.parameters())


def test_each_network_is_trained_by_its_own_loss_alone(teacher):
    run = begin(student_of(teacher("dense"), "dense"))
    run.backpropagate(slice(None))
    assert all(each.grad is None for each in run.fake.parameters())
    run.model.zero_grad(set_to_none=True)
    run.advance_fake(0)
    assert all(each.grad is None for each in run.model.parameters())


def test_shares_of_a_step_have_its_gradient(teacher):
    runs = [begin(student_of(teacher("dense"), "dense", accumulate=each)) for each in (1, 2)]
    for run in runs:
        run.advance()
    one, two = (run.model.state_dict() for run in runs)
    fakes = [run.fake.state_dict() for run in runs]
    assert all(torch.allclose(one[name], two[name], atol=1e-5) for name in one)
    assert all(torch.allclose(fakes[0][name], fakes[1][name], atol=1e-5) for name in fakes[0])


# The training


def test_the_decoder_alone_changes_where_the_recipe_says_so(teacher, tmp_path):
    chosen = student_of(teacher("scd"), train_only="decoder")
    weights = load_file(loop.train(chosen, tmp_path / "few", "cpu", progress=False))
    before = load_file(teacher("scd"))
    changed = {name for name in before if not torch.equal(before[name], weights[name])}
    assert changed and all(name.startswith("decoder.") for name in changed)


def test_a_stopped_training_ends_with_the_same_weights_and_log(teacher, tmp_path):
    chosen = student_of(teacher("scd"), steps=3, save_every=2, fake_steps=2)
    whole = load_file(loop.train(chosen, tmp_path / "whole", "cpu", progress=False))
    run, folder = begin(chosen), TrainingFolder(tmp_path / "parts", chosen)
    for _ in range(2):
        folder.write_what_is_due(run)
        run.advance()
    folder.save_state(run)
    parts = load_file(loop.train(chosen, tmp_path / "parts", "cpu", progress=False))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    states = [torch.load(tmp_path / each / "state.pt", weights_only=True) for each in ("whole", "parts")]
    one, two = (state["companions"] for state in states)
    assert all(torch.equal(one["fake"][name], two["fake"][name]) for name in one["fake"])
    moments = [each["fake_optimizer"]["state"] for each in (one, two)]
    assert moments[0] and all(
        torch.equal(moments[0][place][name], moments[1][place][name])
        for place in moments[0]
        for name in moments[0][place]
    )
    assert [row | {"seconds": 0} for row in states[0]["log"]] == [
        row | {"seconds": 0} for row in states[1]["log"]
    ]


def test_the_fake_score_learns_the_students_clips_and_all_is_finite(teacher, tmp_path):
    """The student begins far from the teacher, so that the fake score has something to learn."""
    other = str(loop.train(teaching("dense", seed=3), tmp_path / "other", "cpu", progress=False))
    chosen = student_of(
        teacher("dense"), "dense", initial=other, steps=30, fake_steps=2, frames=2, student_steps=2,
        keep_every=15, fake_learning_rate=1e-2, saturation_rise=100.0,
    )  # fmt: skip
    weights = load_file(loop.train(chosen, tmp_path / "few", "cpu", progress=False))
    assert all(torch.isfinite(each).all() for each in weights.values())
    with open(tmp_path / "few" / "log.csv") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [0, 15, 30]
    fake = [float(row["fake_loss"]) for row in rows]
    assert fake[2] < fake[0]
    assert all(float(row["saturation"]) > 0 for row in rows) and float(rows[0]["loss"]) == 0


def test_a_student_has_the_steps_that_it_was_trained_with(teacher, tmp_path):
    student = models.load(
        str(loop.train(student_of(teacher("dense"), "dense"), tmp_path / "few", "cpu", progress=False))
    )
    assert choose_sampling(student, None, 25) == Sampling(STEPS, renoise=True)
    with pytest.raises(ValueError, match=f"distilled over {STEPS} noise levels"):
        choose_sampling(student, STEPS + 1, 25)


# Saturation


def rows(*saturations):
    return [{"step": 20 * index, "saturation": each} for index, each in enumerate(saturations)]


@pytest.mark.parametrize(
    ("saturations", "stops"),
    [
        ((1.0, 1.2, 1.2, 1.2), True),
        ((1.0, 1.2, 1.2), False),
        ((1.0, 1.2, 1.05, 1.2, 1.2), False),
        ((1.0, 1.0, 1.0, 1.2, 1.3, 1.4), True),
        ((1.3, 1.35, 1.35, 1.35), False),
        ((1.0, 0.8, 0.8, 0.8), False),
        ((1.0,), False),
    ],
)
def test_a_rise_that_lasts_stops_the_training(saturations, stops):
    chosen = recipe("dense-tiles-dmd", saturation_rise=0.1, saturation_patience=3)
    if not stops:
        require_unsaturated(rows(*saturations), chosen)
        return
    with pytest.raises(ValueError, match="saturation of generated frames rose") as raised:
        require_unsaturated(rows(*saturations), chosen)
    assert f"checkpoint of step {20 * (len(saturations) - 4)} is the last" in str(raised.value)


def test_frames_with_too_much_contrast_are_counted_as_they_are(teacher, monkeypatch):
    """Values beyond [-1, 1] are not clipped before: they are what saturates."""
    run = begin(student_of(teacher("dense"), "dense"))
    run.validate()
    monkeypatch.setattr(
        "framelens.training.self_forcing.rollout", lambda *given, **also: 3 * rollout(*given, **also)
    )
    run.step = 1
    run.validate()
    assert run.log[1]["saturation"] == pytest.approx(3 * run.log[0]["saturation"])


def test_a_training_that_saturates_ends_in_one_line_and_keeps_what_it_saved(
    teacher, tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(
        RECIPES, "wild",
        student_of(
            teacher("dense"), "dense", steps=50, learning_rate=0.5, warmup=1, ema=0.0, save_every=1,
            saturation_patience=2, clip=100.0, fake_learning_rate=1e-2,
        ),
    )  # fmt: skip
    out = tmp_path / "out"
    assert main(["--model", "wild", "--out", str(out)]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "the saturation of generated frames rose from" in line and "saturation_rise=0.1" in line
    assert not (out / "model.safetensors").exists() and list((out / "checkpoints").iterdir())
    saved = torch.load(out / "state.pt", weights_only=True)
    with open(out / "log.csv") as file:
        assert [int(row["step"]) for row in csv.DictReader(file)] == [row["step"] for row in saved["log"]]


# Bad input


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teacher": ""}, "objective=dmd needs a teacher"),
        ({"train_only": "encoder"}, "train_only=encoder"),
        ({"network": "dense", "cut_from": 1}, "cut_from=null"),
        ({"given_frames": FRAMES}, f"given_frames={FRAMES}, of {FRAMES}"),
        ({"objective": "adversarial"}, "no objective is called 'adversarial'; there are consistency, dmd"),
        ({"saturation_rise": 0.0}, "saturation_rise must be positive"),
    ],
)
def test_a_recipe_that_cannot_be_is_one_line(teacher, changes, message):
    with pytest.raises(ValueError, match=message) as raised:
        replace(student_of(teacher("scd")), **changes)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"videos": "digits", "initial": ""}, "knows tiles, not digits"),
        ({"network": "dense", "initial": "", "train_only": "decoder"}, "has no such part"),
        ({"teacher": "no-such-model"}, "no-such-model"),
        ({"teacher": "split-tiles-few"}, "few-step student itself"),
    ],
)
def test_an_unsuitable_teacher_is_refused_before_anything_is_written(teacher, tmp_path, changes, message):
    chosen = replace(student_of(teacher("scd")), **changes)
    with pytest.raises(ValueError, match=message):
        loop.train(chosen, tmp_path / "few", "cpu", progress=False)
    assert not (tmp_path / "few").exists()


def test_its_memory_is_not_estimated(capsys):
    assert estimate(["--model", "dense-tiles", "--memory", "16GB"]) == 0
    assert estimate(["--model", "dense-tiles-dmd", "--memory", "16GB"]) == 2
    assert "objective=dmd is not estimated" in capsys.readouterr().err


def test_the_shipped_recipes_match_the_teacher_of_what_they_start_from():
    for name in ("split-tiles-dmd", "dense-tiles-dmd"):
        chosen = recipe(name)
        assert (chosen.objective, chosen.teacher, chosen.fake_steps) == ("dmd", name.removesuffix("-dmd"), 5)
    assert recipe("split-tiles-dmd").initial == "split-tiles-few"
