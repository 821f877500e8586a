"""The Doom world: rooms stay as they are, poses and memory agree with the pixels, clips are kept."""

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from framelens.records.extras import MissingPackage
from framelens.videos import Clips, worlds

pytest.importorskip("vizdoom")
doom = worlds.load("doom")

TURN = {"left": 1, "right": -1}


@pytest.fixture(scope="module")
def walks(kept_clips) -> Clips:
    return doom.clips(range(16), 16)


def test_an_action_turns_by_30_degrees_or_takes_a_step(walks):
    turned = (np.diff(walks.state["angle"], axis=1) + 180) % 360 - 180
    moved = np.linalg.norm(np.diff(walks.state["position"], axis=1), axis=-1)
    for number, name in enumerate(doom.ACTIONS):
        chosen = walks.actions[:, 1:] == number
        assert chosen.any()
        np.testing.assert_allclose(turned[chosen], 30 * TURN.get(name, 0), atol=0.3)
        if name in ("forward", "back"):
            assert 30 < moved[chosen].mean() < 80


def test_what_a_turn_leaves_in_view_is_the_last_frame_moved(walks):
    across = (np.arange(32) + 0.5) / 16 - 1
    errors, unmoved = [], []
    for clip, frame in zip(*np.nonzero(np.isin(walks.actions, [1, 2])), strict=True):
        position = walks.state["position"][clip]
        if np.linalg.norm(position[frame] - position[frame - 1]) > 0.5:
            continue
        sign = TURN[doom.ACTIONS[walks.actions[clip, frame]]]
        was = np.tan(np.arctan(across) - sign * np.pi / 6)  # of each column, in the last frame
        age = walks.state["age"][clip, frame, 12]
        seen = np.abs(was) <= 1
        clear = (np.abs(np.abs(was) - 1) > 0.02) & (walks.state["object_here"][clip, frame, 12] == 0)
        assert_array_equal((age == 1)[clear], seen[clear])
        before = ((was[seen] + 1) * 16).astype(int).clip(0, 31)
        now, then = walks.video[clip, frame][:, 12], walks.video[clip, frame - 1][:, 12]
        errors.append(np.abs(now[:, seen] - then[:, before]).mean())
        unmoved.append(np.abs(now[:, seen] - then[:, seen]).mean())
    assert len(errors) > 30 and np.mean(errors) < 0.5 * np.mean(unmoved)


def test_a_wall_ends_where_the_picture_changes(walks):
    wall, video = walks.state["wall"], walks.video
    below = np.abs(np.diff(video, axis=3)).mean(2)  # between each row and the next one
    is_foot = (wall[:, :, :-1] >= 0) & (wall[:, :, 1:] < 0) & (walks.state["object_here"][:, :, 1:] == 0)
    is_foot[:, :, :12] = False
    near = [below[np.roll(is_foot, rows, axis=2)].mean() for rows in (-3, -2, 0, 2, 3)]
    assert max(near) == near[2] > 1.5 * max(near[:2] + near[3:])


def test_a_view_that_comes_back_is_the_same_picture(walks):
    same, chance = [], []
    for clip, frame in zip(*np.nonzero(walks.state["same_view"] >= 0), strict=True):
        earlier = walks.state["same_view"][clip, frame]
        pose = np.concatenate([walks.state["position"], walks.state["angle"][..., None]], -1)[clip]
        if np.abs(pose[frame] - pose[earlier]).max() < 0.5:
            assert not (walks.state["age"][clip, frame] == 0).any()
            same.append(np.abs(walks.video[clip, frame] - walks.video[clip, earlier]).mean())
            chance.append(np.abs(walks.video[clip, frame] - walks.video[clip - 1, earlier]).mean())
    assert len(same) > 30 and np.mean(same) < 0.05 * np.mean(chance)


def test_ages_and_codes_agree_and_memory_is_asked_for(walks):
    age, codes = walks.state["age"], walks.state["in_view_before"]
    assert_array_equal(codes, np.minimum(age, 2))
    assert (age <= np.arange(16)[:, None, None]).all()
    shares = [(codes[:, 1:] == code).mean() for code in range(3)]
    assert min(shares) > 0.08, "never seen, in the last frame, only earlier"


def test_walls_are_as_far_away_as_the_plan_says():
    walls = np.array([[0, 0, 0, 9], [0, 9, 9, 9], [9, 9, 9, 0], [9, 0, 0, 0]], float)
    tangents = np.array([-1.0, 0.0, 0.5])
    view = doom.look(walls, np.array([3.0, 2.0, 90.0]), tangents)  # to the north
    assert_array_equal(view.wall, [0, 1, 1])
    np.testing.assert_allclose(1 / view.inverse, [3, 7, 7])


def test_the_targets_follow_the_state(walks):
    targets = doom.targets(walks, 4)
    sizes = {target.values.shape[:2] for target in targets.values()}
    assert sizes == {(16, 16)} and {target.values.shape[2] for target in targets.values()} == {1, 48}
    walls = [targets[f"wall {look}"].values for look in ("in view before", "seen earlier", "never seen")]
    assert (sum(np.isfinite(values) for values in walls) <= 1).all(), "a wall has one age"
    assert all(np.isfinite(values).any() for values in walls)
    assert np.abs(targets["way from the start"].values[:, 0]).max() == 0


def test_a_seed_gives_the_same_clip_when_it_is_made_again(walks, tmp_path, monkeypatch):
    monkeypatch.setenv("FRAMELENS_CACHE", str(tmp_path))
    monkeypatch.setattr(doom.KEPT, "group", 2)
    again = doom.clips([3], 16)
    assert [file.name for file in (tmp_path / "doom-2").iterdir()] == ["training-0002.npz"]
    assert_array_equal(again.video[0], walks.video[3])
    for name, values in again.state.items():
        assert_array_equal(values[0], walks.state[name][3])


def engines():
    """The processes of the engine that this one has started."""
    for status in Path("/proc").glob("[0-9]*/status"):
        with suppress(OSError):
            lines = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line)
            if int(lines["PPid"]) == os.getpid() and lines["Name"].startswith("vizdoom"):
                yield int(status.parent.name)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="finds the engine's process in /proc")
def test_the_engine_goes_on_after_ctrl_c_so_that_a_training_can_finish_its_step():
    rooms = doom.draw_rooms(np.random.default_rng(0), 30)
    with doom.open_game([rooms]) as game:
        found = list(engines())
        assert len(found) == 1
        os.kill(found[0], signal.SIGINT)
        time.sleep(0.1)
        assert doom.walk(game, 0, rooms, np.random.default_rng(0), 3)["video"].shape == (3, 3, 24, 32)
    assert not list(engines())


def test_training_begins_again_with_the_first_clip_after_the_last(walks):
    assert_array_equal(doom.clips([2048 + 5], 4).video[0], walks.video[5, :4])


def test_without_the_engine_kept_clips_are_read_and_others_refused(walks, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "vizdoom", None)
    assert len(doom.clips([4], 3)) == 1
    monkeypatch.setenv("FRAMELENS_CACHE", str(tmp_path / "kept"))
    with pytest.raises(
        MissingPackage, match=r"^vizdoom is not installed: pip install 'framelens\[worlds\]'$"
    ):
        doom.clips([4], 3)
    assert not list((tmp_path / "kept").rglob("*.npz"))
