"""Targets are what the frames of a world show, and a probe reads those that the features hold."""

import re
from dataclasses import replace

import fake_run
import numpy as np
import pytest
import tiny
import torch
import xarray as xr

from framelens import videos
from framelens.probes.experiments import known_state, noise_invariance
from framelens.probes.run import world_features
from framelens.probes.run.probed_clip import ProbedClip
from framelens.probes.run.settings import Settings
from framelens.probes.run.work import open_session
from framelens.reports.plots import known_state as fig_known_state
from framelens.reports.runs import open_run
from framelens.videos.targets import Target, token_centres
from framelens.videos.worlds import digits, tiles

# What the worlds know


@pytest.fixture(scope="module")
def walks():
    return tiles.clips(range(12), 10)


def test_targets_have_a_place_for_every_token_or_one_for_the_frame():
    for world, side in ((tiles, 20), (digits, 16)):
        clips = world.clips(range(3), 6)
        for patch in (2, 4):
            for name, target in world.targets(clips, patch).items():
                assert target.values.shape[:2] == (3, 6) and target.values.shape[2] in (
                    1,
                    (side // patch) ** 2,
                )
                assert np.isfinite(target.values).any(), name
                if target.classes:
                    known = target.values[np.isfinite(target.values)]
                    assert known.min() >= 0 and known.max() < len(target.classes)


def test_a_tiles_kind_is_what_the_frame_shows_there(walks):
    asked, pixels = tiles.targets(walks, 4), token_centres(20, 4).astype(int)
    for name in ("tile in view before", "tile seen earlier", "tile never seen"):
        kinds = asked[name].values[..., 0]
        clip, frame, token = np.nonzero(np.isfinite(kinds))
        rows, cols = pixels[token // 5], pixels[token % 5]
        shown = walks.video[clip, frame, :, rows, cols]
        expected = 2 * tiles.TEXTURES[kinds[clip, frame, token].astype(int), rows % 4, cols % 4] - 1
        np.testing.assert_allclose(shown, expected, atol=1e-6)


def test_when_a_tile_was_seen_agrees_with_the_marks_of_the_world(walks):
    asked, pixels = tiles.targets(walks, 4), token_centres(20, 4).astype(int)
    marks = walks.state["in_view_before"][:, :, pixels][..., pixels].reshape(12, 10, 25)
    for name, mark in {"tile in view before": 1, "tile seen earlier": 2, "tile never seen": 0}.items():
        np.testing.assert_array_equal(np.isfinite(asked[name].values[..., 0]), marks == mark)
    age = asked["frames since seen"].values
    assert np.nanmin(age) == 2 and np.nanmax(age) < 10


def test_a_ball_is_where_the_frame_is_black(walks):
    near = tiles.targets(walks, 4)["ball here"].values[..., 0].reshape(12, 10, 5, 5)
    black = (walks.video.reshape(12, 10, 3, 5, 4, 5, 4) == -1).all(2).sum((3, 5)) >= 8
    assert (near[black] == 1).all() and black.any()


def test_one_digits_token_points_at_its_middle():
    clips = digits.clips(range(8), 5)
    place = digits.targets(clips, 4)["digit's place"].values
    middles = np.stack(np.meshgrid(*[token_centres(16, 4)] * 2, indexing="ij"), -1).reshape(16, 2)
    pointed = place + middles
    true = clips.state["position"] + 3.5
    clip, frame, token = np.nonzero(np.isfinite(place).all(-1))
    apart = np.abs(pointed[clip, frame, token][:, None] - true[clip, frame]).max(-1).min(-1)
    np.testing.assert_allclose(apart, 0, atol=1e-9)


def test_a_target_must_make_sense():
    with pytest.raises(ValueError, match="elsewhere"):
        Target(np.zeros((1, 1, 1, 1)), "elsewhere", "")
    with pytest.raises(ValueError, match=r"\b2\b"):
        Target(np.zeros((1, 1, 1, 2)), "motion", "", classes=("a", "b"))
    with pytest.raises(ValueError, match=r"\b3 .*\b20\b"):
        token_centres(20, 3)


# The experiment


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    file = tiny.checkpoint(tmp_path_factory.mktemp("models") / "tiny.safetensors")
    settings = Settings(clips=2, frames=5, context=3, probed=1, experiments=("known_state",), quick=True)
    return open_session(str(file), settings)


@pytest.fixture(scope="module")
def stored(session):
    parts = [session.measure(index) for index in range(2)]
    assert all(set(part) == {"known_state_features"} for part in parts)
    named = [part["known_state_features"].assign_coords(clip=[index]) for index, part in enumerate(parts)]
    return xr.concat(named, "clip", data_vars="minimal", coords="minimal", compat="equals", join="exact")


@pytest.fixture(scope="module")
def results(stored):
    datasets = {"known_state_features": stored.copy()}
    datasets |= known_state.conclude(datasets)
    assert set(datasets) == {"known_state"}, "the features themselves stay with the clips"
    return datasets["known_state"]


def probed_clip_of(session, **changes):
    settings = replace(session.settings, **changes)
    first, second = session.clips[:2]
    return ProbedClip(0, session.networks, first, second, settings, session.frames)


@pytest.mark.slow
def test_a_run_reads_every_target_at_every_layer_and_noise_level(results, session):
    names = [*tiles.targets(tiles.clips([0], 3), 4), "noise level"]
    assert results.score.dims == ("clip", "network", "target", "layer", "sigma")
    assert results.score_shuffled.dims == ("clip", "target", "layer", "sigma")
    assert results.target.values.tolist() == names and results.network.values.tolist() == [
        "trained",
        "random",
    ]
    assert results.layer.values.tolist() == [-1, 1] and results.sigma.values.tolist() == [1.0, 0.25]
    assert results.sizes["clip"] == 12 and results["clip"].values.tolist() == list(range(12))
    assert all(v.dtype == np.float32 and v.attrs["units"] and v.attrs["long_name"] for v in results.values())
    assert (
        results.chance.sel(target="tile never seen") == 1 / 8
        and results.chance.sel(target="noise level") == 0.5
    )
    scores = results.score.where(results.measure == "balanced accuracy", drop=True)
    assert float(scores.min()) >= 0 and float(scores.max()) <= 1
    assert float(results.score.max()) <= 1
    random = results.score.sel(network="random").drop_sel(target="noise level")
    assert random.sel(sigma=1.0).notnull().any("clip").all() and random.sel(sigma=0.25).isnull().all()


@pytest.mark.slow
def test_only_a_frame_with_little_noise_shows_a_tile_that_was_never_seen(results):
    at = results.score.sel(target="tile never seen", network="trained", layer=-1).mean("clip")
    assert float(at.sel(sigma=1.0)) < 0.3 < 0.6 < float(at.sel(sigma=0.25))


@pytest.mark.slow
def test_the_clips_are_none_that_a_run_measures_otherwise_and_the_numbers_come_again(session, stored):
    again = session.measure(1)["known_state_features"]
    np.testing.assert_array_equal(again.features[0], stored.features[1])
    assert not np.array_equal(stored.features[0], stored.features[1])
    model = session.networks["trained"]
    first = videos.VALIDATION_SEED + world_features.FIRST_SEED
    batch = tiles.clips(range(first, first + 6), 5)
    expected = tiles.targets(batch, model.geometry.patch)["action"].values[:, stored.frame.values]
    names = {v.attrs["name"]: v for v in stored.values() if "name" in v.attrs}
    np.testing.assert_array_equal(names["action"][0], expected)


@pytest.mark.slow
def test_clips_measured_together_have_the_features_of_each_alone(session, monkeypatch):
    monkeypatch.setattr(world_features, "QUICK_SIGMAS", (0.0,))  # where no noise is in the way
    model, batch = session.networks["trained"], tiles.clips(range(3), 5)
    probed_clip = probed_clip_of(session)
    together, points = world_features.features(probed_clip, model, batch, [3, 4], 1)
    assert points == ["hook_embed", "blocks.1.hook_resid_post"] and together.shape == (3, 2, 1, 2, 25, 16)
    video, actions = torch.from_numpy(batch.video[1:2]), torch.from_numpy(batch.actions[1:2])
    context = model.start(1, actions)
    for frame in range(4):
        context = model.encode(video[:, frame : frame + 1], context)
    alone = noise_invariance.residual_stream(model, video[:, 4:5], 0.0, context, 4)
    for layer, point in enumerate(points):
        np.testing.assert_allclose(together[1, 1, 0, layer], alone[point], rtol=1e-3, atol=1e-4)


def test_wide_features_are_made_narrow_and_numbers_keep_ten_bits():
    assert world_features._project(tiny.draw(2, 3, 300)).shape == (2, 3, world_features.CHANNELS)
    values = tiny.draw(100).numpy()
    np.testing.assert_allclose(world_features._round(values), values, rtol=2.0**-10)


@pytest.mark.slow
def test_videos_without_a_known_state_are_left_out_or_refused_in_one_line(session, monkeypatch):
    monkeypatch.delattr(tiles, "targets")
    with pytest.raises(ValueError, match="tiles .*--experiments"):
        known_state.measure(probed_clip_of(session))
    assert known_state.measure(probed_clip_of(session, experiments=())) == {}
    assert known_state.conclude({}) == {}


# The figure


@pytest.fixture(scope="module")
def run(results, tmp_path_factory):
    folder = fake_run.write(tmp_path_factory.mktemp("runs") / "fake" / "first", layers=2, steps=2, clips=5)
    results.to_netcdf(folder / "known_state.nc", engine="netcdf4")
    return open_run(folder)


@pytest.mark.slow
def test_the_figure_has_a_panel_a_target_with_its_null_and_interval(run, results):
    figure, table = fig_known_state.draw(run)
    assert set(fig_known_state.needs) == {"known_state"}
    *titles, shared = [axes.get_title(loc="left") for axes in figure.axes if axes.lines]
    targets = results.target.values.tolist()
    own = [name for name in targets if any(title.startswith(name) for title in titles)]
    assert len(own) == len(titles) and all(map(str.startswith, titles, own))
    assert shared == "Known to no layer", "the others share a panel"
    assert set(table["panel"]) == set(targets)
    assert {"shuffled", "random"} < set(table["curve"]) and table["low"].notna().any()
    row = table[(table.panel == "action") & (table.curve == "sigma 1") & (table.layer == 1)].iloc[0]
    expected = results.score.sel(target="action", network="trained", sigma=1.0, layer=1).mean()
    assert row["mean"] == pytest.approx(float(expected), abs=1e-6)


def words_of(run, results, scores, folder):
    """The words on three targets whose scores of the trained network at sigma 1 are these, by layer."""
    planted = results.isel(target=[0, 7, 9]).copy(deep=True)
    planted["score"].loc[{"network": "trained", "sigma": 1.0}] = np.array(scores)[None, None]
    planted["score_shuffled"][:] = planted.chance + 0 * planted.score_shuffled
    planted.to_netcdf(folder / "known_state.nc", engine="netcdf4")
    return fig_known_state.words(fig_known_state.draw(replace(run, folder=folder))[1])


@pytest.mark.slow
def test_the_words_say_where_a_state_enters_or_that_it_does_not(run, results, tmp_path):
    known = words_of(run, results, [0.5, 1.0], tmp_path)
    assert re.search(r"action: 1\.00 ± 0\D+ 1\b.*place on the map: 1\.00", known)
    unknown = words_of(run, results, [0.0, 0.0], tmp_path)
    assert "1.00" not in unknown and "tile in view before" in unknown
