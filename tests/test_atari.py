"""Breakout: what the console's memory says is what the pixels show, and a seed is a clip."""

import sys

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from framelens.records.extras import MissingPackage
from framelens.videos import VALIDATION_SEED, Clips, worlds

pytest.importorskip("ale_py")
atari = worlds.load("atari")


@pytest.fixture(scope="module")
def games(kept_clips) -> Clips:
    return atari.clips(range(16), 24)


def light(games):
    """Brightness of each pixel in [0, 1]."""
    return (games.video.mean(2) + 1) / 2


def test_the_ball_is_where_the_memory_says(games):
    field = light(games)[:, :, 11:34]  # below the bricks, above the paddle
    ball = games.state["ball"]
    inside = (ball[..., 0] > 13) & (ball[..., 0] < 31)
    assert inside.mean() > 0.4
    places = np.moveaxis(np.indices(field.shape[2:]), 0, -1) + (11, 0)
    shown = (field[..., None] * places).sum((2, 3)) / field.sum((2, 3))[..., None].clip(1e-6)
    apart = np.abs(shown - ball)[
        inside
    ]  # a frame shows it to a quarter of a pixel; memory may be a tic ahead
    assert apart.max() <= 0.75 and (apart < 0.3).mean() > 0.97


def test_no_light_is_in_the_field_where_the_memory_says_there_is_no_ball(games):
    absent = games.state["ball"][..., 0] == -1
    assert absent.any() and (light(games)[:, :, 12:33][absent] < 1e-3).all()


def test_the_paddle_is_where_the_memory_says_and_moves_as_the_actions_say(games):
    assert np.median(atari.state_error(games.video, games.state)) < 0.1
    moved = np.diff(games.state["paddle"], axis=1)
    sides = {name: moved[games.actions[:, 1:] == number] for number, name in enumerate(atari.ACTIONS)}
    assert sides["right"].mean() > 0.5 and sides["left"].mean() < -0.5
    wrong = np.roll(games.video, 4, axis=-1)
    assert np.median(atari.state_error(wrong, games.state)) == pytest.approx(4, abs=0.2)


def test_a_brick_that_is_gone_stays_away_and_its_place_is_dark(games):
    bricks, lives = games.state["bricks"], games.state["lives"]
    same_game = (np.diff(lives, axis=1) <= 0)[..., None, None]
    assert not (same_game & bricks[:, 1:] & ~bricks[:, :-1]).any()
    assert (bricks[:, :-1] & ~bricks[:, 1:]).any(), "some bricks are hit"
    target = atari.targets(games, 4)["brick here"].values.reshape(16, 24, 9, 9)
    shown = light(games).reshape(16, 24, 9, 4, 9, 4).mean((3, 5))
    assert shown[target == 0].mean() < 0.7 * shown[target == 1].mean()


def test_the_balls_token_and_velocity_follow_from_its_places(games):
    targets = atari.targets(games, 4)
    here, velocity = targets["ball here"].values[..., 0], targets["ball velocity"].values
    assert set(np.unique(here.sum(2))) <= {0, 1}
    clip, frame, token = np.argwhere(np.isfinite(velocity[..., 0]))[3]
    ball = games.state["ball"][clip]
    np.testing.assert_allclose(velocity[clip, frame, token], ball[frame] - ball[frame - 1])
    assert_array_equal(np.abs(ball[frame] - np.array([token // 9, token % 9]) * 4 - 1.5) <= 2, True)


def test_a_seed_gives_the_same_clip_when_it_is_made_again(games, tmp_path, monkeypatch):
    monkeypatch.setenv("FRAMELENS_CACHE", str(tmp_path))
    monkeypatch.setattr(atari.KEPT, "group", 1)
    again = atari.clips([5, VALIDATION_SEED + 5], 24)
    assert_array_equal(again.video[0], games.video[5])
    assert not np.array_equal(again.video[0], again.video[1])
    for name, values in again.state.items():
        assert_array_equal(values[0], games.state[name][5])


def test_without_the_package_one_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ale_py", None)
    monkeypatch.setenv("FRAMELENS_CACHE", str(tmp_path))
    with pytest.raises(MissingPackage, match=r"^ale_py is not installed: pip install 'framelens\[worlds\]'$"):
        atari.clips([0], 2)
    assert not list(tmp_path.rglob("*.npz"))
