"""A probe run: the promised files and axes, the same numbers however often it was stopped."""

import json
import re
import shutil
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool

import numpy as np
import pytest
import tiny
import torch
import xarray as xr

from framelens import models, videos
from framelens.analyses import statistics
from framelens.diffusion.schedule import sigma_grid
from framelens.models.loading import checkpoint as _checkpoint
from framelens.probes import experiments
from framelens.probes.__main__ import main
from framelens.probes.chunk.scale import IN_PIXELS
from framelens.probes.experiments import noise_invariance, readout
from framelens.probes.run import clips as _clips
from framelens.probes.run import folder as run_folder
from framelens.probes.run import probed_clip, work
from framelens.probes.run.settings import Settings
from framelens.videos import files, latents, worlds

pytestmark = pytest.mark.slow

SMALL = "--clips 2 --steps 2 --frames 5 --context 3 --probed 2 --workers 1 --run small".split()
SMALL += "--experiments noise_invariance readout rollouts".split()
ONE = "--clips 1 --steps 1 --frames 3 --context 1 --probed 1 --workers 1".split()
ONE += "--statistics block_norms --run one".split()

SIGMAS = (1.0, 0.25)
"""Noise levels of the noise invariance, here fewer than in earnest."""

BY_RUN = {"network": ["trained", "random"], "mode": ["teacher_forced", "free_running"]}
TOKEN_MEASURES = ("token_cosine", "token_cosine_median", "token_share", "channel_share")
AXES = {
    "step_similarity": (
        {**BY_RUN, "frame": [3, 4], "layer": [-1, 0, 1], "step": [0, 1], "step_b": [0, 1]},
        {"cosine", "centred_cosine", "relative_l2", "cka", "common_mode", *TOKEN_MEASURES},
    ),
    "frame_attention": (
        {**BY_RUN, "frame": [3, 4], "layer": [0, 1], "head": [0, 1], "step": [0, 1], "lag": list(range(5))},
        {"mass", "uniform", "entropy", "uniform_entropy", "mean_lag", "cross_mass", "mass_stderr"},
    ),
    "feature_pca": (
        {
            **BY_RUN,
            "frame": [3, 4],
            "layer": [0, 1],
            "pca_step": [0, 1],
            "token": list(range(25)),
            "component": [0, 1, 2],
        },
        {"components", "explained"},
    ),
    "block_norms": (
        {**BY_RUN, "frame": [3, 4], "layer": [0, 1], "step": [0, 1]},
        {"attn_out", "mlp_out", "resid_post"},
    ),
    "noise_invariance": (
        {"network": ["trained", "random"], "frame": [3, 4], "layer": [-1, 0, 1], "sigma": list(SIGMAS)},
        {"centred_cosine", "other_context", *TOKEN_MEASURES}
        | {f"other_context_{name}" for name in TOKEN_MEASURES if "cosine" in name},
    ),
    "samples": (
        {"mode": ["teacher_forced", "free_running"], "frame": list(range(5))},
        {"video", "truth", "psnr", "psnr_copy_last", "psnr_mean_frame"},
    ),
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny.checkpoint(tmp_path_factory.mktemp("models") / "tiny.safetensors")


def run(checkpoint, out, arguments, *more):
    return main(["--model", str(checkpoint), "--out", str(out), *arguments, *more])


@pytest.fixture(scope="module")
def whole(checkpoint, tmp_path_factory):
    """The folder of an uninterrupted run."""
    out = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(noise_invariance, "SIGMAS", SIGMAS)
        assert run(checkpoint, out, SMALL) == 0
    return out / "tiny" / "small"


def datasets(folder):
    return {file.stem: xr.load_dataset(file, engine="netcdf4") for file in sorted(folder.glob("*.nc"))}


@pytest.fixture(scope="module")
def results(whole):
    return datasets(whole)


def manifest(folder):
    return json.loads((folder / "manifest.json").read_text())


# What is written


def test_every_promised_file_is_there(whole, results):
    assert set(results) == set(AXES)
    assert {file.name for file in (whole / "clips").iterdir()} == {"0000", "0001"}
    assert not list(whole.rglob(".*"))


@pytest.mark.parametrize("name", AXES)
def test_axes_and_variables_are_as_promised(results, name):
    coords, variables = AXES[name]
    dataset = results[name]
    assert set(dataset.data_vars) == variables
    for axis, expected in {"clip": [0, 1], **coords}.items():
        assert dataset[axis].values.tolist() == expected
    order = ["clip", *coords]
    for variable in dataset.data_vars.values():
        known = [axis for axis in variable.dims if axis in order]
        assert known == sorted(known, key=order.index), f"{variable.name} has its axes in another order"
        assert variable.dtype == np.float32, f"{variable.name} is {variable.dtype}"
        assert variable.attrs["units"] and variable.attrs["long_name"]


def test_layers_and_steps_say_what_they_are(results):
    assert results["step_similarity"].point.values.tolist() == [
        "hook_embed",
        "blocks.0.hook_resid_post",
        "blocks.1.hook_resid_post",
    ]
    assert results["frame_attention"].point.values.tolist() == ["blocks.0.attn", "blocks.1.attn"]
    for name in ("step_similarity", "frame_attention", "block_norms"):
        assert results[name].sigma.values.tolist() == [1.0, 0.5] and results[name].sigma.dims == ("step",)


def test_results_are_numbers_and_differ_between_networks_and_modes(results):
    for name in ("step_similarity", "block_norms", "feature_pca"):
        for variable in results[name].data_vars.values():
            assert np.isfinite(variable).all()
            for axis in BY_RUN:
                first, second = (variable.isel({axis: index}) for index in (0, 1))
                assert variable.size < 100 or not np.allclose(first, second), f"{variable.name} by {axis}"
    assert np.isfinite(results["noise_invariance"].to_array()).all()


def test_attention_adds_up(results):
    attention = results["frame_attention"]
    np.testing.assert_allclose(attention.mass.sum("lag"), 1, atol=1e-5)
    assert np.isnan(attention.mass.sel(frame=3, lag=4)).all()
    np.testing.assert_allclose(attention.mass.sel(lag=0) + attention.cross_mass, 1, atol=1e-5)
    np.testing.assert_allclose(attention.uniform.sel(frame=3, lag=slice(0, 3)), 0.25)


def test_samples_stand_beside_the_truth(results, checkpoint):
    samples = results["samples"]
    truth = worlds.load("tiles").clips(range(videos.VALIDATION_SEED, videos.VALIDATION_SEED + 2), 5).video
    np.testing.assert_array_equal(samples.truth, truth)
    given = samples.video.sel(mode="free_running", frame=slice(0, 2))
    np.testing.assert_array_equal(given, samples.truth.sel(frame=slice(0, 2)))
    assert np.isnan(samples.psnr.sel(mode="free_running", frame=[0, 1, 2])).all()
    assert np.isfinite(samples.psnr.sel(mode="free_running", frame=[3, 4])).all()
    is_sampled = np.isfinite(samples.psnr.sel(mode="teacher_forced")).all("clip")
    assert samples.frame[is_sampled].values.tolist() == [3, 4]
    error = (samples.video.clip(-1, 1) - samples.truth).sel(mode="free_running", frame=4)
    expected = 10 * np.log10(4 / (error**2).mean(("channel", "row", "col")))
    np.testing.assert_allclose(samples.psnr.sel(mode="free_running", frame=4), expected, rtol=1e-5)
    # The first sampled frame has the same past and the same noise in both modes.
    first = samples.video.sel(frame=3)
    np.testing.assert_allclose(first.sel(mode="teacher_forced"), first.sel(mode="free_running"), atol=1e-4)


def test_the_manifest_says_what_was_measured(whole, checkpoint):
    about = manifest(whole)
    model = models.load(str(checkpoint))
    assert about["complete"] is True and about["command"].startswith("framelens probe")
    assert about["model"]["name"] == "tiny" and about["model"]["sha256"] == model.source.sha256
    assert about["model"]["parameters"] == sum(weight.numel() for weight in model.parameters())
    assert about["model"]["geometry"]["tokens_per_frame"] == 25
    assert about["sigmas"] == sigma_grid(2).tolist()
    settings = about["settings"]
    assert (settings["clips"], settings["steps"], settings["context"], settings["seed"]) == (2, 2, 3, 0)
    assert settings["frames"] == 5 and settings["probed_frames"] == [3, 4]
    assert about["versions"]["torch"] == torch.__version__


def test_every_file_says_what_repeats_it(whole, checkpoint):
    about = manifest(whole)
    files = [*whole.glob("*.nc"), *whole.glob("clips/*/*.nc")]
    assert len(files) > 10
    for file in files:
        with xr.open_dataset(file, engine="netcdf4") as stored:
            said = stored.attrs
        assert (said["command"], said["seed"], said["model"]) == (about["command"], 0, "tiny"), file
        assert json.loads(said["settings"]) == about["settings"], file
        assert said["model_sha256"] == about["model"]["sha256"], file
        assert said["torch"] == torch.__version__ and said["framelens"], file


# Stopping and going on


def assert_same(folder, whole):
    first, second = datasets(folder), datasets(whole)
    assert first.keys() == second.keys()
    for name, dataset in first.items():
        for each in (dataset, second[name]):
            del each.attrs["command"]  # it names the folder
        xr.testing.assert_identical(dataset, second[name])
    assert manifest(folder)["complete"] is True


BRIEF = "--clips 2 --steps 2 --frames 4 --context 2 --probed 2 --workers 1 --run small".split()
BRIEF += ["--statistics", "block_norms", "frame_attention"]


def leave_out_other_experiments(patch):
    """Only the rollouts: they are enough to stop and to go on with."""
    patch.setattr(experiments, "names", lambda: ["rollouts"])


@pytest.fixture
def only_rollouts(monkeypatch):
    leave_out_other_experiments(monkeypatch)


@pytest.fixture(scope="module")
def reference(checkpoint, tmp_path_factory):
    """Two clips with two statistics, uninterrupted."""
    out = tmp_path_factory.mktemp("reference")
    with pytest.MonkeyPatch.context() as patch:
        leave_out_other_experiments(patch)
        assert run(checkpoint, out, BRIEF) == 0
    return out / "tiny" / "small"


def test_a_run_that_was_killed_goes_on_to_the_same_numbers(
    checkpoint, tmp_path, reference, only_rollouts, monkeypatch
):
    write_clip, written = run_folder.RunFolder.write_clip, []

    def die_at_the_second(folder, clip, *rest):
        if len(written) == 1:
            raise SystemExit(-9)
        written.append(clip)
        write_clip(folder, clip, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(run_folder.RunFolder, "write_clip", die_at_the_second)
        with pytest.raises(SystemExit):
            run(checkpoint, tmp_path, BRIEF)
    folder = tmp_path / "tiny" / "small"
    assert manifest(folder)["complete"] is False and not list(folder.glob("*.nc"))
    assert [file.name for file in (folder / "clips").iterdir()] == ["0000"]
    assert run(checkpoint, tmp_path, BRIEF) == 0
    assert_same(folder, reference)
    assert [session["clips"] for session in manifest(folder)["sessions"]] == [1]


def test_missing_clips_are_made_again_and_half_written_ones_are_ignored(
    checkpoint, tmp_path, reference, only_rollouts
):
    folder = tmp_path / "tiny" / "small"
    shutil.copytree(reference, folder)
    shutil.move(folder / "clips" / "0001", folder / "clips" / "partial-0001-7")
    (folder / "clips" / "partial-0001-7" / "block_norms.nc").write_bytes(b"half")
    for merged in folder.glob("*.nc"):
        merged.unlink()
    untouched = (folder / "clips" / "0000" / "samples.nc").stat().st_mtime_ns
    assert run(checkpoint, tmp_path, BRIEF) == 0
    assert_same(folder, reference)
    assert {file.name for file in (folder / "clips").iterdir()} == {"0000", "0001"}
    assert (folder / "clips" / "0000" / "samples.nc").stat().st_mtime_ns == untouched


def test_a_finished_run_given_again_changes_nothing_in_its_folder(
    checkpoint, tmp_path, reference, only_rollouts
):
    folder = tmp_path / "tiny" / "small"
    shutil.copytree(reference, folder)
    added = {"plan.json": "a plan", "samples_preview.nc": "previews", "page.html": "a page"}
    for name, text in added.items():
        (folder / name).write_text(text)
    before = {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in folder.rglob("*")
              if file.is_file()}  # fmt: skip
    assert run(checkpoint, tmp_path, BRIEF) == 0
    after = {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in folder.rglob("*")
             if file.is_file()}  # fmt: skip
    assert after == before
    (folder / "samples.nc").unlink()
    assert run(checkpoint, tmp_path, BRIEF) == 0
    assert all((folder / name).read_text() == text for name, text in added.items()), "joined again"
    (folder / "samples_preview.nc").unlink()
    assert_same(folder, reference)


def test_a_run_stopped_by_hand_says_how_to_go_on(checkpoint, tmp_path, monkeypatch, capsys):
    def stop(session, index, begin):
        raise KeyboardInterrupt

    monkeypatch.setattr(work.Session, "measure", stop)
    assert run(checkpoint, tmp_path, ONE) == 130
    assert capsys.readouterr().err.splitlines()[-1].startswith("framelens probe: ")


def test_a_worker_that_dies_is_one_line(checkpoint, tmp_path, monkeypatch, capsys):
    class Dying:
        def __init__(self, *_, **__):
            pass

        def submit(self, *_):
            future = Future()
            future.set_exception(BrokenProcessPool("terminated abruptly"))
            return future

        def shutdown(self, **_):
            pass

    monkeypatch.setattr(work, "ProcessPoolExecutor", Dying)
    arguments = [*ONE, "--clips", "2", "--workers", "2", "--run", "dying"]
    assert run(checkpoint, tmp_path, arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(r"\b2 .*--workers", line)


def test_a_checkpoint_that_says_nothing_of_its_videos_is_shown_its_own(tmp_path, only_rollouts):
    network = tiny.model(**tiny.TILES)
    metadata = tiny.metadata(network)
    del metadata["videos"], metadata["training"]
    _checkpoint.write(tmp_path / "bare.safetensors", network.state_dict(), metadata)
    arguments = [word for word in ONE if word not in ("--frames", "3")]
    assert run(tmp_path / "bare.safetensors", tmp_path, arguments) == 0
    folder = tmp_path / "bare" / "one"
    settings = manifest(folder)["settings"]
    assert (settings["videos"], settings["frames"]) == ("own", 8)
    kept = latents.read(folder / "own.safetensors").video
    samples = datasets(folder)["samples"]
    np.testing.assert_array_equal(samples.truth[0], kept[0])
    assert len(kept) == 2 and np.abs(kept).max() <= 1, "one more as control; pixels are in their range"


def test_own_samples_are_drawn_once_whoever_measures_them(checkpoint, tmp_path, only_rollouts, monkeypatch):
    arguments = [*BRIEF, "--videos", "own"]
    assert run(checkpoint, tmp_path / "a", arguments) == 0
    first = tmp_path / "a" / "tiny" / "small"
    second = tmp_path / "b" / "tiny" / "small"
    shutil.copytree(first, second)
    shutil.rmtree(second / "clips" / "0001")
    monkeypatch.setattr(_clips, "own_sample", None)
    assert run(checkpoint, tmp_path / "b", arguments) == 0
    assert_same(second, first)


def test_other_settings_or_another_model_do_not_continue_a_run(checkpoint, tmp_path, reference, capsys):
    folder = tmp_path / "tiny" / "small"
    shutil.copytree(reference, folder)
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    for more in (["--seed", "1"], ["--steps", "3"], ["--queries", "5"], ["--shift", "2"]):
        assert run(checkpoint, tmp_path, BRIEF, *more) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert str(folder) in line and "--run" in line
    retrained = tiny.checkpoint(tmp_path / "new" / "tiny.safetensors", tiny.model(seed=1, **tiny.TILES))
    assert run(retrained, tmp_path, BRIEF) == 2
    assert str(folder) in capsys.readouterr().err
    assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == before


def test_a_damaged_manifest_is_named(checkpoint, tmp_path, capsys):
    folder = tmp_path / "tiny" / "one"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{")
    assert run(checkpoint, tmp_path, ONE) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(folder / "manifest.json") in line


def test_runs_are_named_after_what_differs_from_the_defaults():
    assert Settings().slug() == "default"
    assert Settings(steps=5, statistics=("block_norms", "feature_pca")).slug() == (
        "steps-5_statistics-block_norms+feature_pca"
    )
    assert "/" not in Settings(videos="a/b.mp4").slug()


def test_a_run_takes_its_frames_from_the_training_and_its_clips_from_a_file(tmp_path, capsys, only_rollouts):
    network = tiny.model(conditions=2)
    path = tiny.checkpoint(tmp_path / "trial" / "model.safetensors", network, frames=4)
    video = np.tanh(tiny.draw(8, 3, 16, 16).numpy())
    footage = files.write(tmp_path / "film.gif", video)
    settings = [*ONE[:4], "--context", "2", *ONE[8:], "--videos", str(footage)]
    assert run(path.parent, tmp_path, settings) == 0
    folder = tmp_path / "trial" / "one"
    assert capsys.readouterr().out.strip() == str(folder)
    samples = datasets(folder)["samples"]
    assert samples.truth.shape == (1, 4, 3, 8, 8) and manifest(folder)["settings"]["frames"] == 4


# The parts


def test_the_experiments_are_the_files_with_a_measurement():
    assert {"noise_invariance", "readout", "rollouts"} <= set(experiments.names())
    assert not {"settings", "subject", "run_folder", "finite"} & set(experiments.names())
    with pytest.raises(ValueError, match="'magic'.*controls, cut, "):
        experiments.load("magic")


def test_every_statistic_is_run_unless_some_are_named(results, reference):
    assert set(statistics.names()) <= set(results)
    assert set(datasets(reference)) & set(statistics.names()) == {"block_norms", "frame_attention"}


def test_a_readout_of_four_clips_is_concluded_and_of_fewer_is_not(whole):
    stored = [xr.load_dataset(whole / "clips" / f"000{clip}" / "readout_features.nc") for clip in (0, 1)]
    merged = {"readout_features": xr.concat(stored, "clip")}
    assert readout.conclude(merged) == {} and merged == {}, "the features were only for the readout"
    four = xr.concat([*stored, *stored], "clip").assign_coords(clip=range(4))
    concluded = readout.conclude({"readout_features": four})["readout"]
    assert set(concluded.data_vars) == {"r2", "r2_shuffled"}
    assert concluded.r2.dims == ("clip", "network", "layer") and concluded.r2.shape == (4, 2, 3)
    assert concluded.network.values.tolist() == ["trained", "random"]
    assert concluded.point.values.tolist()[0] == "hook_embed"
    assert all(v.dtype == np.float32 and np.isfinite(v).all() for v in concluded.data_vars.values())


def test_probed_frames_lie_between_the_context_and_the_end():
    assert probed_clip.probed_frames(Settings(context=4, probed=3), 12) == [4, 8, 11]
    assert probed_clip.probed_frames(Settings(context=4, probed=1), 12) == [11]
    assert probed_clip.probed_frames(Settings(context=4, probed=9), 6) == [4, 5]


def test_noise_follows_from_seed_clip_and_draw():
    clip = probed_clip.Clip(torch.zeros(1, 2, 3, 8, 8), None)

    def noise(index=0, name="rollouts", number=0, seed=0):
        return probed_clip.ProbedClip(index, {}, clip, clip, Settings(seed=seed), 2).noise(name, number)

    assert torch.equal(noise(), noise())
    for other in (noise(index=1), noise(name="readout"), noise(number=1), noise(seed=1)):
        assert not torch.equal(noise(), other)


def test_a_perfect_picture_has_a_hundred_decibels_and_black_for_white_none():
    white = np.ones((1, 3, 4, 4), np.float32)
    assert IN_PIXELS.psnr(white, white) == pytest.approx(100)
    assert IN_PIXELS.psnr(-white, white) == pytest.approx(0)
    assert IN_PIXELS.psnr(white * 5, white) == pytest.approx(100), "values beyond the range are clipped"


def test_seeds_of_probing_are_held_out_and_differ_between_seeds(checkpoint):
    model = models.load(str(checkpoint))
    first, second = (_clips.read_clips(Settings(clips=2, seed=seed), model, 2) for seed in (0, 1))
    assert len(first) == 3 and first[0].cond.shape == (1, 2)
    assert not any(torch.equal(a.video, b.video) for a in first for b in second)
