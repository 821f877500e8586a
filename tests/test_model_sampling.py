"""A probe samples a model as it is meant to be: at its own noise levels, and under guidance where asked."""

import json
from dataclasses import replace

import chunked_twin
import pytest
import tiny
import torch
from bounds import assert_same, rounding
from chunked_twin import CHANNELS, CHUNK, PROMPT, SIDE
from safetensors.torch import save_file

from framelens import models
from framelens.diffusion.guidance import guide
from framelens.diffusion.sampler import rollout
from framelens.diffusion.schedule import Sampling, sigma_grid
from framelens.models.loading.shuffled import copy_shuffled
from framelens.probes import __main__ as program
from framelens.probes.estimate.work import evaluations
from framelens.probes.experiments.rollouts import make_instruments, measure, watched_rollout
from framelens.probes.run.clips import own_clips, own_sample, read_clips
from framelens.probes.run.probed_clip import Clip, ProbedClip, grid_of
from framelens.probes.run.settings import OF_THE_MODEL, Settings
from framelens.probes.run.shape import shape_of_run
from framelens.videos import latents

LEVELS = (1.0, 0.757, 0.522)
FRAMES = 4
TEXT = tiny.draw(3, *PROMPT, seed=5)
NEGATIVE = tiny.draw(*PROMPT, seed=6)


@pytest.fixture
def model():
    model = chunked_twin.model()
    model.sampling = Sampling(3, 8.0, True, levels=LEVELS)
    return model


@pytest.fixture
def plain():
    """Without levels of its own, in two steps that add no fresh noise."""
    model = chunked_twin.model()
    model.sampling = Sampling(2, 5.0)
    return model


def video(clips=3, frames=FRAMES):
    return 2 * tiny.draw(clips, frames, CHANNELS, SIDE, SIDE, seed=1)


def written(path, **beside):
    return latents.write(path, video().numpy(), **{name: value.numpy() for name, value in beside.items()})


def settings(model, **changes):
    asked = {"clips": 2, "frames": FRAMES, "context": CHUNK, "probed": 1, "quick": True} | changes
    return Settings(**asked).of_model(model, OF_THE_MODEL)


# Noise levels


def test_a_models_own_levels_are_walked_by_rollouts_and_interventions(model):
    about = settings(model)
    assert (about.levels, about.steps, about.shift) == (LEVELS, 3, 8.0)
    clip = Clip(video(1), TEXT[:1])
    probed_clip = ProbedClip(0, {"trained": model}, clip, clip, about, FRAMES)
    expected = torch.tensor([*LEVELS, 0])
    assert torch.equal(probed_clip.sigmas, expected) and torch.equal(probed_clip.chunk_probe().grid, expected)


def test_another_number_of_steps_takes_an_even_grid_under_the_models_shift(model):
    asked = Settings(steps=12).of_model(model, ("shift", "renoise"))
    assert asked.levels is None and torch.equal(grid_of(asked), sigma_grid(12, 8.0))
    same = Settings(steps=3).of_model(model, ("shift", "renoise"))
    assert same.levels == LEVELS, "as many steps as it has levels are its own"
    moved = Settings(shift=8.0).of_model(model, ("steps", "renoise"))
    assert moved.levels is None and torch.equal(grid_of(moved), sigma_grid(3, 8.0))


def test_fewer_steps_of_interventions_take_an_even_grid(model):
    model.sampling = Sampling(6, 8.0, levels=(1.0, 0.9, 0.8, 0.7, 0.5, 0.2))
    about = settings(model)
    assert about.drawn_steps == 5 and len(grid_of(about)) == 7
    assert torch.equal(grid_of(about, about.drawn_steps), sigma_grid(5, 8.0))


def test_resolved_settings_stay_as_they_are_in_worker_processes(model):
    about = settings(model)
    assert about.of_model(model) == about


def test_a_run_is_named_after_what_differs_from_the_models_own(model):
    about = settings(model)
    usual = Settings(quick=True, steps=10, probed=2).of_model(model, OF_THE_MODEL)
    assert usual.slug(model) == "quick"
    named = {
        Settings(steps=12).of_model(model, ("shift", "renoise")): "steps-12",
        Settings(shift=5.0).of_model(model, ("steps", "renoise")): "shift-5.0",
        Settings(shift=8.0).of_model(model, ("steps", "renoise")): "levels-None",
        replace(Settings().of_model(model, OF_THE_MODEL), guidance=5.0): "guidance-5.0",
    }
    assert {one.slug(model): name for one, name in named.items()} == {name: name for name in named.values()}
    assert about.describe()["levels"] == list(LEVELS)


@pytest.mark.slow
def test_the_manifest_holds_the_levels_and_a_run_is_gone_on_with(tmp_path, model, monkeypatch):
    monkeypatch.setattr(models, "find", lambda name: name)
    monkeypatch.setattr(models, "label", lambda name: name)
    monkeypatch.setattr(models, "load", lambda *_, **__: model)
    arguments = "--model twin --quick --clips 1 --frames 4 --context 2 --workers 1 --run own".split()
    arguments += ["--experiments", "rollouts", "--statistics", "block_norms", "--out", str(tmp_path)]
    assert program.main(arguments) == 0
    file = tmp_path / "twin" / "own" / "manifest.json"
    manifest = json.loads(file.read_text())
    assert manifest["sigmas"] == torch.tensor([*LEVELS, 0]).tolist()
    assert manifest["model"]["sampling"]["levels"] == manifest["settings"]["levels"] == list(LEVELS)
    assert program.main(arguments) == 0, "the same command is the same run"
    assert program.main([*arguments, "--shift", "8"]) == 2, "and an even grid another one"


# Guidance


def test_rollouts_are_those_of_the_guided_model_away_from_the_files_negative_prompt(tmp_path, plain):
    file = written(tmp_path / "a.safetensors", text=TEXT, negative=NEGATIVE)
    about = settings(plain, videos=str(file), guidance=3.0)
    clips = read_clips(about, plain, FRAMES)
    assert torch.equal(clips[0].negative, NEGATIVE)
    probed_clip = ProbedClip(0, {"trained": plain}, clips[0], clips[1], about, FRAMES)
    drawn, _ = watched_rollout(probed_clip, plain, "free_running", ("block_norms",))
    by_hand = guide(plain, 3.0, null=NEGATIVE)
    noise, given = probed_clip.noise("rollouts"), clips[0].video[:, :CHUNK]
    assert torch.equal(drawn, rollout(by_hand, noise, sigma_grid(2, 5.0), TEXT[:1], given))
    unguided = rollout(plain, noise, sigma_grid(2, 5.0), TEXT[:1], given)
    assert not torch.allclose(drawn, unguided, atol=1e-2)


def test_statistics_read_the_conditional_branch_alone(plain):
    """Teacher-forced, step 0 sees the same frames with and without guidance, so its statistics agree."""
    clip = Clip(video(1), TEXT[:1], NEGATIVE)
    chosen, drawn, found = ("block_norms", "frame_attention"), [], []
    for scale in (1.0, 3.0):
        probed_clip = ProbedClip(0, {"trained": plain}, clip, clip, settings(plain, guidance=scale), FRAMES)
        sampled, statistics = watched_rollout(probed_clip, plain, "teacher_forced", chosen)
        drawn.append(sampled)
        found.append(statistics)
    for name in chosen:
        one, other = (each[name].isel(step=0) for each in found)
        assert set(one.data_vars) == set(other.data_vars)
        for variable in one.data_vars:
            bound = rounding(torch.float32, 32, 2, one[variable].values)
            assert_same(other[variable].values, one[variable].values, bound=bound)
    assert not torch.allclose(*drawn, atol=1e-2)


def test_both_branches_are_announced_and_sinks_hear_one(plain):
    heard, announced = [], []

    class Listening:
        def add(self, at, name, value):
            heard.append(at)

    sampler = guide(plain, 3.0, null=NEGATIVE)
    with make_instruments(plain, {"block_norms": Listening()}, {0, CHUNK}) as attached:

        def on_pass(at):
            announced.append(at)
            attached.on_pass(at)

        rollout(sampler, video(1), sigma_grid(2), TEXT[:1], on_pass=on_pass)
    assert {at.branch for at in announced} == {"cond", "uncond"} and {at.branch for at in heard} == {"cond"}


def test_own_samples_are_guided_and_keep_their_prompts(tmp_path, plain):
    prompts = tmp_path / "prompts.safetensors"
    save_file({"text": TEXT, "negative": NEGATIVE}, prompts)
    about = settings(plain, videos=f"own:{prompts}", guidance=3.0)
    clips = own_clips(about, plain, FRAMES, tmp_path / "own.safetensors")
    assert torch.equal(clips[1].cond, TEXT[1:2]) and torch.equal(clips[1].negative, NEGATIVE)
    text, negative = TEXT[1:2].numpy(), NEGATIVE.numpy()
    again = own_sample(about, plain, FRAMES, 1, text, negative)
    assert_same(clips[1].video[0], again, bound=rounding(torch.float32, 32, 4, again))
    other = own_sample(replace(about, guidance=1.0), plain, FRAMES, 1, text, negative)
    assert not torch.allclose(clips[1].video[0], torch.from_numpy(other), atol=1e-2)


def test_a_null_prompt_of_zeros_does_not_stand_for_the_empty_one(tmp_path, plain):
    about = settings(plain, videos=str(written(tmp_path / "a.safetensors", text=TEXT)), guidance=3.0)
    assert read_clips(about, plain, FRAMES)[0].negative is None, "the twin has a null prompt of its own"
    plain.null_condition = torch.zeros(PROMPT)
    with pytest.raises(ValueError, match=r"3\.0"):
        read_clips(about, plain, FRAMES)
    assert read_clips(replace(about, guidance=1.0), plain, FRAMES)[0].negative is None


def test_guidance_without_anything_to_lead_towards_is_refused(tmp_path, plain):
    file = str(written(tmp_path / "a.safetensors"))
    for source in (file, "own"):
        about = settings(plain, videos=source, guidance=3.0)
        with pytest.raises(ValueError, match=r"3\.0 .*text"):
            if source == "own":
                own_clips(about, plain, FRAMES, tmp_path / "own.safetensors")
            else:
                read_clips(about, plain, FRAMES)
    free = tiny.model()
    free.source = plain.source
    with pytest.raises(ValueError, match=r"--guidance 2\.0"):
        read_clips(Settings(clips=1, frames=6, videos="tiles", guidance=2.0), _sized(free), 6)


def _sized(model):
    model.geometry = replace(model.geometry, height=20, width=20)
    return model


@pytest.mark.parametrize("scale", [-1.0, float("inf"), float("nan")])
def test_scales_that_mean_nothing_are_refused(scale):
    with pytest.raises(ValueError, match=r"--guidance .*\b0\b"):
        Settings(guidance=scale)


def test_what_a_guided_run_takes_is_counted(plain, monkeypatch):
    about = settings(plain, guidance=3.0, experiments=("rollouts",), statistics=("block_norms",))
    clip, layers = Clip(video(1), TEXT[:1], NEGATIVE), len(plain.blocks)
    calls = {"denoise": 0, "encode": 0}
    for kind in calls:
        own = getattr(type(plain), kind)

        def counting(self, *rest, kind=kind, own=own):
            calls[kind] += layers
            return own(self, *rest)

        monkeypatch.setattr(type(plain), kind, counting)
    measure(ProbedClip(0, {"trained": plain, "random": copy_shuffled(plain, 0)}, clip, clip, about, FRAMES))
    expected = evaluations(shape_of_run(plain, about, FRAMES))
    assert (calls["denoise"], calls["encode"]) == (expected["rollouts"], expected["memory"])
