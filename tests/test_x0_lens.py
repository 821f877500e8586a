"""The frame as a layer sees it: what is read is what a map fitted on other clips makes of its tokens."""

from dataclasses import replace

import counted
import fake_run
import numpy as np
import pytest
import torch
import xarray as xr
from bounds import assert_same

from framelens.analyses.x0_lens import read_by_one_map
from framelens.diffusion.schedule import add_noise
from framelens.probes.experiments import x0_lens
from framelens.probes.experiments.x0_lens import FEATURES, SHOWN, conclude, evaluations, measure
from framelens.probes.run.probed_clip import Clip
from framelens.reports.plots import load
from framelens.reports.runs import open_run

CLIPS = 5
HALF_A_LEVEL = 0.51 / 127.5


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_a_planted_map_is_read_from_tokens_that_were_not_in_the_fit():
    weights, features = random(6, 4, seed=1), random(CLIPS, 20, 6)
    shown = random(9, 6, seed=2)
    r2, read = read_by_one_map(features, features @ weights + 2, list("abcde"), shown)
    assert r2.min() > 0.999
    assert_same(read, (shown @ weights + 2).double(), bound=1e-3)


def test_of_nothing_the_mean_patch_is_read():
    targets = random(CLIPS, 200, 4) + torch.arange(4.0)
    r2, read = read_by_one_map(random(CLIPS, 200, 3, seed=3), targets, list("abcde"), random(9, 3, seed=4))
    assert abs(r2).max() < 0.05
    assert (read - torch.arange(4.0)).abs().max() < 0.6


def test_a_film_is_read_without_its_other_clips():
    """Two clips of a film have one patch: a fit that saw one would read the other by the film's own token."""
    films = [name for name in "abcd" for _ in range(2)]
    identity = torch.eye(4).repeat_interleave(2, 0)[:, None].expand(8, 30, 4)
    features = torch.cat([identity, random(8, 30, 2)], -1)
    targets = random(4, 1, 3, seed=5).repeat_interleave(2, 0).expand(8, 30, 3)
    r2, _ = read_by_one_map(features, targets, films, features[0])
    assert r2.mean() < 0.2


@pytest.fixture(scope="module", params=["dense", "chunked"])
def measured(request):
    """Clips of a small network, and the datasets of each."""
    with counted.few():
        first, run = counted.probed(counted.NETWORKS[request.param](), counted.settings())
        clips = [first]
        for index in range(1, CLIPS):
            video = first.clip.video + 0.5 * torch.randn_like(first.clip.video)
            clips.append(replace(first, index=index, clip=Clip(video, first.clip.cond)))
        return clips, [measure(clip) for clip in clips], run


@pytest.fixture(scope="module")
def concluded(measured):
    _, found, _ = measured
    joined = {FEATURES: xr.concat([each[FEATURES] for each in found], "clip"), SHOWN: found[0][SHOWN]}
    return conclude(joined)


def values_of(stored):
    return stored.values if stored.dtype == np.float32 else stored.values / 127.5 - 1


def test_the_noised_frame_and_the_prediction_are_those_of_the_pass(measured, concluded):
    (clip, *_), _, _ = measured
    frames, frame = concluded["x0_lens_frames"], clip.chunks[-1]
    model, video, span = clip.networks["trained"], clip.clip.video, clip.span(clip.chunks[-1])
    context = model.start(1, clip.clip.cond)
    for earlier in range(0, frame, clip.chunk):
        context = model.encode(video[:, clip.span(earlier)], context)
    for step, sigma in zip(frames.step.values, frames.sigma.values, strict=True):
        level = video.new_full((1, clip.chunk), float(sigma))
        x = add_noise(video[:, span], clip.noise("x0_lens")[:, span], level)
        clean = x - float(sigma) * model.denoise(x, x.new_full((1,), float(sigma)), context)
        for name, expected in (("noised", x), ("predicted", clean)):
            stored, expected = frames[name].sel(step=step)[0], expected[0, -1]
            expected = expected if stored.dtype == np.float32 else expected.clamp(-1, 1)
            assert np.abs(values_of(stored) - expected.numpy()).max() <= HALF_A_LEVEL


def test_patches_are_put_back_where_they_were(measured):
    (clip, *_), found, _ = measured
    tokens = torch.arange(clip.networks["trained"].geometry.tokens_per_chunk)
    patches = x0_lens.patches_of(clip, clip.chunks[-1], tokens)
    own = patches[-clip.networks["trained"].geometry.tokens_per_frame :]
    assert (x0_lens._picture(own, found[0][SHOWN]) == clip.clip.video[0, -1]).all()


def test_what_is_read_comes_from_the_tokens_of_the_shown_frame(measured, concluded):
    _, found, _ = measured
    features, lens = found[0][FEATURES].features, concluded["x0_lens"]
    shown = found[0][SHOWN].features
    count = shown.sizes["token"]
    kept = features.isel(clip=0, frame=-1).values[..., -count:, :]
    assert (kept == shown.isel(clip=0).values).all(), "with few tokens all are kept for the fit"
    assert lens.r2.dims == ("clip", "step", "layer") and lens.sizes["clip"] == CLIPS
    x = torch.from_numpy(np.concatenate([each[FEATURES].features.isel(step=-1, layer=1) for each in found]))
    y = torch.from_numpy(np.concatenate([each[FEATURES].target.values for each in found]))
    r2, read = read_by_one_map(
        x.flatten(1, 2), y.flatten(1, 2), [str(n) for n in range(CLIPS)], x[0, -1, -count:]
    )
    assert_same(lens.r2.isel(step=-1, layer=1).values.astype(float), r2, bound=1e-6)
    picture = x0_lens._picture(read, found[0][SHOWN])
    stored = concluded["x0_lens_frames"].read.isel(clip=0, step=-1, layer=1)
    picture = picture if stored.dtype == np.float32 else picture.clamp(-1, 1)
    assert np.abs(values_of(stored) - picture.numpy()).max() <= HALF_A_LEVEL


def test_too_few_clips_and_too_large_networks_have_none(measured, monkeypatch):
    clips, found, run = measured
    few = {FEATURES: found[0][FEATURES], SHOWN: found[0][SHOWN]}
    assert conclude(few) == {} and few == {}
    assert set(found[1]) == {FEATURES}, "later clips are not shown"
    monkeypatch.setattr(x0_lens, "MOST_BYTES", 1)
    assert measure(clips[0]) == {} and evaluations(run).denoising == 0
    asked = replace(run, settings=counted.settings(experiments=("x0_lens",)))
    assert evaluations(asked).denoising > 0


# Figures


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return open_run(fake_run.write(tmp_path_factory.mktemp("runs") / "fake" / "a", layers=4, clips=5))


def images(figure):
    """The picture in each of the axes, as it is drawn."""
    return [axes.get_images()[0].get_array() for axes in figure.get_axes()]


def test_the_figure_shows_every_layer_at_every_step_between_input_and_prediction(run):
    figure, table = load("x0_lens").draw(run)
    stored = run.read("x0_lens_frames").isel(clip=0)
    columns, rows = 1 + stored.sizes["step"], stored.sizes["layer"] + 2
    found = images(figure)
    assert len(found) == rows * columns
    expected = stored.transpose("step", "layer", "row", "col", "channel")
    for row, pictures in ((0, expected.noised), (2, expected.read.isel(layer=1)), (-1, expected.predicted)):
        shown = found[row * columns :][:columns] if row >= 0 else found[-columns:]
        assert np.abs(np.asarray(shown[0]) * 255 - expected.truth.values).max() < 1e-3
        for step in range(columns - 1):
            assert np.abs(np.asarray(shown[1 + step]) * 255 - pictures.isel(step=step).values).max() < 1e-3
    means = run.read("x0_lens").r2.mean("clip").values.ravel()
    assert table["mean"].to_numpy() == pytest.approx(means, abs=1e-6)


def test_latents_are_shown_by_three_channels(run):
    stored = run.read("x0_lens_frames").isel(clip=0, channel=[0, 1, 2, 0]).assign_attrs(latent=1)
    pictures = load("x0_lens").as_pictures(stored)
    assert {picture.sizes["channel"] for picture in pictures.values()} == {3}


def test_principal_components_are_beside_the_generated_frame(run):
    figure, _ = load("pca").draw(run)
    frame = run.read("samples", "video", mode="teacher_forced").video.isel(clip=0).sel(frame=9)
    expected = (frame.transpose("row", "col", "channel").values + 1) / 2
    assert np.abs(np.asarray(images(figure)[0]) - expected).max() < 1e-6


def test_principal_components_are_drawn_without_samples(tmp_path):
    folder = fake_run.write(tmp_path / "fake" / "a", layers=4, clips=5)
    (folder / "samples.nc").unlink()
    figure, _ = load("pca").draw(open_run(folder))
    assert figure.get_axes()[0].get_title().startswith("step 0")
