"""Any model of the contract can be probed: several frames at a time, latents, prompts, its own sampler."""

import json
import re

import chunked_twin
import numpy as np
import pytest
import tiny
import torch
import xarray as xr
from bounds import assert_same
from chunked_twin import CHANNELS, CHUNK, PROMPT, SIDE
from matplotlib.text import Text

from framelens import models
from framelens.diffusion.sampler import rollout
from framelens.diffusion.schedule import sigma_grid
from framelens.models.loading.shuffled import copy_shuffled
from framelens.probes import __main__ as program
from framelens.probes import experiments
from framelens.probes.chunk import chunk_probe, cross_frame
from framelens.probes.chunk.chunk_probe import DRAWS
from framelens.probes.chunk.pasts import Clip
from framelens.probes.chunk.scale import Scale
from framelens.probes.experiments import known_state, readout
from framelens.probes.run import clips as _clips
from framelens.probes.run import probed_clip, work
from framelens.probes.run.clips import own_clips, own_sample, read_clips
from framelens.probes.run.probed_clip import ProbedClip
from framelens.probes.run.settings import OF_THE_MODEL, Settings
from framelens.reports.__main__ import main as reports_main
from framelens.reports.plots import samples as fig_samples
from framelens.reports.runs import open_run
from framelens.videos import latents

FRAMES = 6


@pytest.fixture(scope="module")
def model():
    return chunked_twin.model()


@pytest.fixture(scope="module", autouse=True)
def few_levels():
    """Two conditions at a time, two noise levels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunk_probe, "ROWS", 2 * DRAWS)
        patch.setattr(probed_clip, "LEVELS", 2)
        yield


def video(seed=1, frames=FRAMES, clips=1):
    return 2 * tiny.draw(clips, frames, CHANNELS, SIDE, SIDE, seed=seed)


def clip(seed):
    return Clip(video(seed), tiny.draw(1, *PROMPT, seed=10 + seed))


def about(model, **changes):
    networks = {"trained": model, "random": copy_shuffled(model, 0)}
    settings = Settings(clips=1, frames=FRAMES, quick=True, context=CHUNK, probed=2)
    settings = settings.of_model(model, OF_THE_MODEL)
    return ProbedClip(0, networks, clip(1), clip(2), settings, FRAMES)


# The network of these tests keeps the contract


def test_the_twin_leaks_nothing_from_later_chunks(model):
    past, noise, sigmas = video(), video(3), sigma_grid(2)
    before = rollout(model, noise, sigmas, clip(1).cond, past, teacher_forced=True)
    changed = past.clone()
    changed[:, 2:4] += 1
    after = rollout(model, noise, sigmas, clip(1).cond, changed, teacher_forced=True)
    assert torch.equal(before[:, :4], after[:, :4]) and not torch.equal(before[:, 4:], after[:, 4:])


# Several frames at a time


@pytest.mark.usefixtures("float64")
def test_the_chunk_probe_draws_the_last_chunk_as_a_rollout_does():
    model = chunked_twin.model()
    probed = about(model)
    probe = probed.chunk_probe()
    assert probe.frame == 4 and probe.truth.shape[1] == CHUNK and probe.steps == 3
    drawn = rollout(
        model, probed.noise("chunk_probe"), probe.grid, probed.clip.cond, probed.clip.video,
        teacher_forced=True, denoised_frames={4}, renoise=probed.renoise_seed("chunk_probe"),
    )  # fmt: skip
    assert_same(probe.sample[0], drawn[0, 4:])


@pytest.mark.usefixtures("float64")
def test_conditions_are_drawn_with_the_same_fresh_noise():
    """Rows of a batch that change nothing give the plain frames, so interventions can be compared."""
    model = chunked_twin.model()
    probe = about(model).chunk_probe()
    nothing = torch.stack([cross_frame.live(probe)] * 3)
    for drawn in cross_frame.generate(probe, nothing, {}, first=1):
        assert_same(drawn, probe.sample)
    assert not torch.allclose(probe.sample[0], probe.sample[1], atol=1e-2)


@pytest.mark.usefixtures("float64")
def test_own_chunk_only_is_a_network_without_memory():
    model = chunked_twin.model()
    probed = about(model)
    probe = probed.chunk_probe()
    modes = cross_frame.through(probe, len(probe.layers) - 1, cross_frame.CUT)[None]
    alone = cross_frame.generate(probe, modes, {})[0]
    assert not torch.allclose(alone, probe.sample, atol=1e-2)
    forgetful = probed.networks["trained"].start(DRAWS, probed.clip.cond.expand(DRAWS, -1, -1))
    probe.pasts.contexts[DRAWS, "own"] = forgetful.__class__(
        probe.frame, forgetful.cache, model.rotation([4, 5]), forgetful.cond, forgetful.text
    )
    probe.pasts._at_level.clear()  # what was prepared of the other contexts
    plain = probe.generate(probe.noise, lambda x, step: probe.velocity(x, probe.sigma(step), step))
    assert_same(alone, plain)


def test_first_frames_of_chunks_are_probed_and_features_are_those_of_the_chunk(model):
    probed = about(model)
    assert list(probed.chunks) == [0, 2, 4] and probed.probed == [2, 4]
    stored = readout.measure(probed)["readout_features"]
    assert stored.frame.values.tolist() == [2, 4]
    assert stored.sizes["token"] == model.geometry.tokens_per_chunk
    patches = probed.clip.video[0, 4:6].reshape(2, CHANNELS, 2, 2, 2, 2).permute(0, 2, 4, 1, 3, 5)
    np.testing.assert_array_equal(stored.target.values[0, -1], patches.reshape(8, -1))


def test_nothing_is_known_of_the_state_of_latents(model):
    assert known_state.measure(about(model)) == {}


# The sampler that a model asks for


def test_settings_are_the_models_unless_they_are_asked_for(model):
    whole = Settings().of_model(model, OF_THE_MODEL)
    assert (whole.steps, whole.shift, whole.renoise, whole.drawn_steps) == (3, 5.0, True, 3)
    asked = Settings(steps=20).of_model(model, ("shift",))
    assert (asked.steps, asked.shift, asked.renoise) == (20, 5.0, False)
    assert whole.slug(model) == "default" and "steps-20" in asked.slug(model)
    assert "renoise-False" in asked.slug(model), "what differs from the model's own is stated"
    plain = tiny.model()
    plain.source = model.source
    assert Settings(videos="tiles").of_model(plain, OF_THE_MODEL) == Settings(videos="tiles")


def test_context_is_rounded_to_whole_chunks(model):
    assert [Settings(context=n).of_model(model).context for n in (1, 2, 3, 5)] == [2, 2, 2, 4]


def test_frames_are_in_whole_chunks_and_leave_something_to_draw(model):
    settings = Settings(context=2, videos="own")
    assert _clips.frames_of(settings, model) == 16
    assert _clips.frames_of(Settings(context=2, frames=7, videos="own"), model) == 6
    with pytest.raises(ValueError, match=r"\b2 .*\b2 "):
        _clips.frames_of(Settings(context=2, frames=3, videos="own"), model)


# Latents


def test_latents_are_not_clipped_and_compared_in_their_own_range(model):
    truth = np.array([-4.0, 4.0], np.float32).reshape(1, 1, 1, 2)
    scale = Scale.of(model, torch.from_numpy(truth))
    assert scale.peak == 8 and scale.limit_range(truth) is truth
    assert scale.psnr(truth + 0.8, truth)[0] == pytest.approx(20, abs=1e-4)
    assert Scale.of(tiny.model(), torch.from_numpy(truth)) == Scale()


# Where clips come from


def test_a_file_of_latents_gives_clips_with_prompts_cut_to_frames(model, tmp_path):
    text = tiny.draw(3, *PROMPT).numpy()
    file = latents.write(tmp_path / "a.safetensors", video(clips=3, frames=8).numpy(), text=text)
    settings = Settings(clips=2, context=2, videos=str(file))
    assert _clips.frames_of(settings, model) == 8, "as many as the file has"
    clips = read_clips(settings, model, 6)
    assert len(clips) == 3 and clips[0].video.shape == (1, 6, CHANNELS, SIDE, SIDE)
    np.testing.assert_array_equal(clips[1].cond[0], text[1])
    np.save(tmp_path / "bare.npy", video(clips=3).numpy())
    (first, *_) = read_clips(Settings(clips=2, videos=str(tmp_path / "bare.npy")), model, 6)
    assert torch.equal(first.cond[0], model.null_condition), "without a prompt, that of nothing"


def test_video_of_a_model_of_latents_says_how_to_encode_it(model, tmp_path):
    for source in ("tiles", str(tmp_path)):
        with pytest.raises(ValueError, match="framelens latents"):
            read_clips(Settings(videos=source), model, 6)
    with pytest.raises(FileNotFoundError, match="nowhere.mp4"):
        read_clips(Settings(videos="nowhere.mp4"), model, 6)


def test_latents_of_another_size_and_too_few_are_told(model, tmp_path):
    np.save(tmp_path / "other.npy", np.zeros((3, 6, 1, SIDE, SIDE), np.float32))
    with pytest.raises(ValueError, match=r"\(1, 4, 4\).*\(4, 4, 4\)"):
        read_clips(Settings(clips=2, videos=str(tmp_path / "other.npy")), model, 6)
    np.save(tmp_path / "few.npy", video(clips=2).numpy())
    with pytest.raises(ValueError, match=r"\b2 .*\b2 "):
        read_clips(Settings(clips=2, videos=str(tmp_path / "few.npy")), model, 6)


def test_own_clips_are_free_runs_kept_and_gone_on_with(model, tmp_path, monkeypatch):
    settings = Settings(clips=1, context=2, videos="own").of_model(model, OF_THE_MODEL)
    file = tmp_path / "own.safetensors"
    clips = own_clips(settings, model, 4, file)
    again = own_sample(settings, model, 4, 1)
    np.testing.assert_array_equal(clips[1].video[0], again)
    assert len(clips) == 2 and not torch.equal(clips[0].video, clips[1].video)
    assert torch.equal(clips[0].cond[0], model.null_condition)
    latents.write(file, clips[0].video.numpy())
    resumed = own_clips(settings, model, 4, file)
    assert all(torch.equal(a.video, b.video) for a, b in zip(clips, resumed, strict=True))
    monkeypatch.setattr(_clips, "own_sample", None)
    assert torch.equal(own_clips(settings, model, 4, file)[1].video, clips[1].video), "nothing is drawn again"


def test_own_clips_follow_prompts(model, tmp_path):
    text = tiny.draw(1, *PROMPT)
    torch.save({"text": text}, tmp_path / "prompts.pt")
    settings = Settings(clips=1, context=2, videos=f"own:{tmp_path / 'prompts.pt'}")
    settings = settings.of_model(model, OF_THE_MODEL)
    clips = own_clips(settings, model, 4, tmp_path / "own.safetensors")
    assert all(torch.equal(each.cond, text) for each in clips), "the prompt serves all clips"
    unprompted = own_sample(settings, model, 4, 0)
    assert not np.allclose(clips[0].video[0], unprompted, atol=1e-3)


@pytest.mark.parametrize(
    ("takes", "null", "given", "expected"),
    [
        (None, None, {}, None),
        (None, 4, {}, torch.full((2, 3), 4)),
        ("labels", 7, {}, torch.tensor([7, 7])),
        ("labels", 7, {"labels": np.array([1, 2])}, torch.tensor([1, 2])),
        ("actions", 0, {"actions": np.ones((2, 3), np.int64)}, torch.ones(2, 3, dtype=torch.long)),
        ("actions", torch.zeros(5), {}, torch.zeros(2, 3, 5)),
        ("text", torch.ones(4, 6), {}, torch.ones(2, 4, 6)),
    ],
)
def test_clips_without_conditions_get_those_that_say_nothing(takes, null, given, expected):
    batch = latents.LatentClips(np.zeros((2, 3, 1, 2, 2), np.float32), **given)
    model = tiny.said(takes=takes, null_condition=null)
    found = _clips.conditions_of(batch, model)
    assert found is None if expected is None else torch.equal(found, expected)


def test_a_model_without_a_null_condition_asks_for_clips_with_conditions():
    batch = latents.LatentClips(np.zeros((2, 3, 1, 2, 2), np.float32))
    with pytest.raises(ValueError, match="text"):
        _clips.conditions_of(batch, tiny.said(takes="text"))


# Every experiment, and a whole run with nothing but the model


@pytest.mark.slow
def test_every_experiment_gives_numbers(model, tmp_path):
    settings = Settings(clips=1, quick=True, context=2, videos="own").of_model(model, OF_THE_MODEL)
    networks = {"trained": model, "random": copy_shuffled(model, 0)}
    session = work.Session(networks, [], settings, FRAMES).with_own_clips(tmp_path)
    found = session.measure(0)
    assert set(experiments.names()) - {"rollouts", "readout", "known_state", "mask_drift", "x0_lens"} <= set(
        found
    )
    for name, dataset in found.items():
        for variable in dataset.data_vars.values():
            values = variable.dropna("frame", how="all") if "frame" in variable.dims else variable
            assert np.isfinite(values).any(), f"{name}.{variable.name}"
            assert not np.isinf(values).any(), f"{name}.{variable.name}"
    assert float(found["controls"].passed.min()) == 1
    assert found["frame_attention"].lag.values.tolist() == [0, 1, 2, 3, 4]
    samples = found["samples"]
    assert np.isfinite(samples.psnr.sel(mode="free_running", frame=[2, 3, 4, 5])).all(), "a value per frame"
    assert np.isfinite(samples.psnr.sel(mode="teacher_forced", frame=[4, 5])).all()
    assert np.isnan(samples.psnr_copy_last.sel(frame=[0, 1])).all()
    truth, peak = samples.truth[0].values, float(samples.truth.max() - samples.truth.min())
    error = ((truth[1] - truth[3]) ** 2).mean()
    assert samples.psnr_copy_last.sel(frame=3).item() == pytest.approx(10 * np.log10(peak**2 / error))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A quick run through the command, of the rollouts alone."""
    out = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "find", lambda name: name)
        patch.setattr(models, "label", lambda name: name)
        patch.setattr(models, "load", lambda *_, layers=1, **__: chunked_twin.model(layers=layers))
        arguments = "--model twin --quick --clips 1 --frames 7 --context 3 --workers 1 --run own".split()
        arguments += ["--experiments", "rollouts", "--set", "layers=2", "--out", str(out)]
        assert program.main(arguments) == 0
    return out / "twin" / "own"


@pytest.mark.slow
def test_the_manifest_says_what_was_measured_and_how(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    settings = manifest["settings"]
    assert settings["videos"] == "own" and settings["set"] == {"layers": 2}
    assert (settings["steps"], settings["shift"], settings["renoise"]) == (3, 5.0, True)
    assert (settings["frames"], settings["context"]) == (6, 2)
    assert manifest["sigmas"] == sigma_grid(3, 5.0).tolist()
    assert manifest["model"]["latent"] is True and manifest["model"]["geometry"]["frames_per_chunk"] == 2
    assert latents.read(folder / "own.safetensors").video.shape == (2, 6, CHANNELS, SIDE, SIDE)


FIGURES = ("samples", "pca", "lag")


@pytest.mark.slow
def test_figures_are_drawn_of_it(folder, tmp_path, capsys):
    arguments = ["--run", str(folder), "--out", str(tmp_path), "--figure", *FIGURES]
    assert reports_main(arguments) == 0
    assert {file.stem for file in tmp_path.rglob("*.png")} == set(FIGURES)


@pytest.mark.slow
def test_latents_are_shown_by_three_channels_or_decoded(folder):
    run = open_run(folder)
    by_mode = {mode: run.read("samples", mode=mode) for mode in run.modes("samples")}
    shown = fig_samples.pictures(by_mode, {})
    assert shown["truth"].sizes["channel"] == 3
    assert float(shown["truth"].min()) == pytest.approx(-1) and float(shown["truth"].max()) == pytest.approx(
        1
    )
    figure, _ = fig_samples.draw(run)
    said = " ".join(" ".join(text.get_text().split()) for text in figure.findobj(Text))
    assert fig_samples.AS_COLOURS in said and fig_samples.OWN in said
    pixels = ("pixel_frame", "colour", "pixel_row", "pixel_col")
    decoded = np.zeros((1, 21, 3, 8, 8), np.uint8)
    decoded[:, [0, 4, 8]] = 255
    latent_frame = {"latent_frame": ("pixel_frame", np.repeat(range(6), [1, 4, 4, 4, 4, 4]))}
    previews = {
        mode: xr.Dataset(
            {"preview": (("clip", *pixels), decoded), "truth_preview": (("clip", *pixels), decoded)},
            latent_frame,
        )
        for mode in by_mode
    }
    for video in fig_samples.pictures(by_mode, previews).values():
        assert dict(video.sizes) == {"frame": 6, "channel": 3, "row": 8, "col": 8}
        assert video.mean(("channel", "row", "col")).values.tolist() == [1, 1, 1, -1, -1, -1]


def test_what_was_rounded_is_one_line(model, capsys):
    session = work.Session({"trained": model}, [], Settings(context=2), 6)
    program._say_what_was_rounded(Settings(context=3, frames=7), session, ["probed"])
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(r"^framelens probe: .*\b2 .*--context 3 .*\b2, .*--frames 7 .*\b6$", line)


@pytest.mark.parametrize("pair", ["height", "=4", "a b=1"])
def test_what_a_model_is_told_needs_a_name_and_a_value(pair, capsys):
    assert program.main(["--set", pair]) == 2
    assert re.search(f"--set .*{pair!r}", capsys.readouterr().err)
