"""Procedural worlds: everything follows from the seed, and the video from the state."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from framelens import videos
from framelens.videos import worlds
from framelens.videos.worlds import digits, panorama, tiles

SOURCES = {"tiles": tiles, "digits": digits, "panorama": panorama}
GAMES = {"doom": "vizdoom", "atari": "ale_py"}


def same(first, second):
    if (first.actions is None) != (second.actions is None):
        return False
    pairs = [(first.video, second.video), *((first.state[name], second.state[name]) for name in first.state)]
    return all(np.array_equal(a, b) for a, b in pairs)


@pytest.fixture(params=[*SOURCES, *GAMES])
def source(request):
    if request.param in GAMES:
        pytest.importorskip(GAMES[request.param])
    return worlds.load(request.param)


def test_the_sources_are_the_files_there_are():
    assert {"digits", "tiles"} <= set(worlds.names())
    with pytest.raises(ValueError, match="'moon'.*digits.*panorama.*tiles"):
        worlds.load("moon")


def test_a_seed_is_a_clip_whatever_its_neighbours_are(source):
    alone, among = source.clips([7], 5), source.clips([3, 7], 5)
    assert_array_equal(alone.video[0], among.video[1])
    assert same(alone, source.clips(range(7, 8), 5)) and not same(alone, source.clips([8], 5))


def test_seeds_of_training_and_validation_give_different_clips(source):
    seeds = [*range(4), *(videos.VALIDATION_SEED + row for row in range(4))]
    clips = source.clips(seeds, 3).video.reshape(8, -1)
    assert len(np.unique(clips, axis=0)) == 8


def test_clips_have_the_stated_shape_and_range(source):
    clips = source.clips(range(3), 6)
    assert clips.video.shape == (3, 6, *source.SHAPE) and clips.video.dtype == np.float32
    assert len(clips) == 3 and -1 <= clips.video.min() < clips.video.max() <= 1
    assert all(values.shape[:2] == (3, 6) for values in clips.state.values())
    if source.CONDITIONS:
        assert clips.actions.shape == (3, 6) and clips.actions.dtype == np.int64
        assert (clips.actions[:, 0] == 0).all()
        assert 0 <= clips.actions.min() and clips.actions.max() < source.CONDITIONS
    else:
        assert clips.actions is None


# Tiles

FRAMES = 12
PIXELS = tiles.MAP * tiles.TILE
MOVES = {"stay": (0, 0), "up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}


@pytest.fixture(scope="module")
def world():
    return tiles.clips(range(6), FRAMES)


def in_view(position):
    """Rows and columns of the map, in pixels, that the camera sees around an agent at that tile."""
    corners = (position - tiles.VIEW // 2) * tiles.TILE
    return tuple((corner + np.arange(tiles.TILE * tiles.VIEW)) % PIXELS for corner in corners)


def seen(position):
    """The places of the map in view, as a mask."""
    mask = np.zeros((PIXELS, PIXELS), bool)
    mask[np.ix_(*in_view(position))] = True
    return mask


def views(world):
    """Clip, frame, positions so far and the marks of that frame."""
    for clip in range(len(world)):
        for frame in range(FRAMES):
            yield (
                clip,
                frame,
                world.state["position"][clip, : frame + 1],
                world.state["in_view_before"][clip, frame],
            )


def test_the_agent_goes_where_its_actions_lead(world):
    moves = np.array([MOVES[name] for name in tiles.ACTIONS])[world.actions]
    position = world.state["position"]
    assert_array_equal((position[:, 1:] - position[:, :-1] - moves[:, 1:]) % tiles.MAP, 0)
    assert_array_equal(world.state["velocity"], moves)
    assert 0 <= position.min() and position.max() < tiles.MAP


def test_the_balls_glide_over_a_map_that_stays(world):
    position, velocity = world.state["ball_position"], world.state["ball_velocity"]
    assert_array_equal((position[:, 1:] - position[:, :-1] - velocity[:, 1:]) % PIXELS, 0)
    for name in ("map", "ball_velocity"):
        assert_array_equal(
            world.state[name], np.broadcast_to(world.state[name][:, :1], world.state[name].shape)
        )


def test_every_pixel_that_nothing_covers_shows_its_tile(world):
    for clip, frame, positions, marks in views(world):
        rows, cols = in_view(positions[-1])
        kinds = world.state["map"][clip, frame][np.ix_(rows // tiles.TILE, cols // tiles.TILE)]
        tile = tiles.TEXTURES[kinds, (rows % tiles.TILE)[:, None], (cols % tiles.TILE)[None]]
        shown = np.moveaxis(world.video[clip, frame], 0, -1)
        np.testing.assert_allclose(shown[marks != 255], 2 * tile[marks != 255] - 1, atol=1e-6)


def test_what_is_covered_is_the_agent_in_the_middle_or_a_ball(world):
    for clip, frame, positions, marks in views(world):
        shown, covered = np.moveaxis(world.video[clip, frame], 0, -1), marks == 255
        middle = np.zeros_like(covered)
        middle[9:11, 9:11] = True
        assert covered[middle].all() and (shown[middle] == 1).all()
        assert (shown[covered & ~middle] == -1).all()
        near = np.zeros_like(covered)
        rows, cols = in_view(positions[-1])
        for row, col in world.state["ball_position"][clip, frame]:
            near |= ((rows - row) % PIXELS < tiles.TILE)[:, None] & ((cols - col) % PIXELS < tiles.TILE)[None]
        assert not (covered & ~middle & ~near).any()
        visible = near & ~middle
        assert covered[visible].any() == visible.any() or visible.sum() < 4  # a corner of the disc's square


def test_marks_tell_when_a_place_was_last_in_view(world):
    found = set()
    for _, frame, positions, marks in views(world):
        here = np.ix_(*in_view(positions[-1]))
        last = seen(positions[-2])[here] if frame else np.zeros_like(marks, bool)
        earlier = np.any([seen(p)[here] for p in positions[:-2]] or [np.zeros_like(last)], axis=0)
        expected = np.where(last, 1, np.where(earlier, 2, 0))
        open_ = marks != 255
        assert_array_equal(marks[open_], expected[open_])
        found |= set(np.unique(marks))
    assert found == {0, 1, 2, 255}


def test_a_place_in_view_in_the_last_frame_is_that_frame_moved_by_the_action(world):
    for clip, frame, _, marks in views(world):
        if not frame:
            continue
        down, right = tiles.TILE * world.state["velocity"][clip, frame]
        before = np.roll(world.video[clip, frame - 1], (-down, -right), axis=(1, 2))
        covered = np.roll(world.state["in_view_before"][clip, frame - 1], (-down, -right), axis=(0, 1)) == 255
        still = (marks == 1) & ~covered
        assert still.any()
        assert_array_equal(world.video[clip, frame][:, still], before[:, still])


# Digits


def moved(image, position):
    """The scan on an empty canvas, moved by a part of a pixel, after the formula of bilinear weights."""
    row, col = (
        digits.SIDE - 1 - np.abs(np.arange(digits.SIDE)[:, None] - np.arange(8) - p) for p in position
    )
    weights = (np.clip(side - digits.SIDE + 2, 0, 1) for side in (row, col))
    down, right = weights
    return down @ image @ right.T


def pictures(validation, label, position):
    images, labels = digits._scans(validation)
    return np.stack([moved(image, position).ravel() for image in images[labels == label]])


@pytest.fixture(scope="module")
def bouncing():
    return digits.clips([*range(3), *range(videos.VALIDATION_SEED, videos.VALIDATION_SEED + 3)], 30)


def test_a_digit_that_meets_no_wall_glides(bouncing):
    position, velocity = bouncing.state["position"], bouncing.state["velocity"]
    free = ~bouncing.state["bounced"][:, 1:]
    np.testing.assert_allclose((position[:, 1:] - position[:, :-1])[free], velocity[:, 1:][free], atol=1e-12)
    assert_array_equal(velocity[:, 1:][free], velocity[:, :-1][free])


def test_a_digit_that_meets_a_wall_turns_back_within_the_frame(bouncing):
    position, velocity, bounced = (bouncing.state[name] for name in ("position", "velocity", "bounced"))
    assert bounced.any() and not bounced.all() and not bounced[:, 0].any()
    assert 0 <= position.min() and position.max() <= digits.SIDE - digits.DIGIT
    beyond = position[:, :-1] + velocity[:, :-1]
    outside = (beyond < 0) | (beyond > digits.SIDE - digits.DIGIT)
    assert_array_equal(outside.any(-1), bounced[:, 1:])
    assert (np.sign(velocity[:, 1:]) == np.where(outside, -1, 1) * np.sign(velocity[:, :-1])).all()
    speed = np.linalg.norm(velocity, axis=-1)
    assert 0.7 - 1e-9 <= speed.min() and speed.max() <= 1.6 + 1e-9


@pytest.mark.parametrize("clip", range(6))
def test_the_frames_show_the_labelled_digits_where_they_are_from_the_right_scans(bouncing, clip):
    validation = clip >= 3
    state = {name: values[clip] for name, values in bouncing.state.items()}
    assert (state["label"] == state["label"][0]).all()
    frame = 17
    one, other = (
        pictures(validation, state["label"][frame, d], state["position"][frame, d]) for d in range(2)
    )
    shown = (bouncing.video[clip, frame].ravel() + 1) / 2
    error = np.abs(np.minimum(one[:, None] + other[None], 1) - shown).max(-1)
    assert error.min() < 1e-5


def test_scans_of_validation_never_occur_in_training():
    training, validation = (digits._scans(held_out)[0].reshape(-1, 64) for held_out in (False, True))
    assert len(training) > len(validation) > 300
    assert not {scan.tobytes() for scan in training} & {scan.tobytes() for scan in validation}


# Panorama


def test_the_camera_goes_on_in_the_direction_that_the_prompt_says():
    walks = panorama.clips(range(16), FRAMES)
    steps = np.array(list(panorama.DIRECTIONS.values()))
    assert walks.text.shape == (16, *panorama.PROMPT) and walks.text.dtype == np.float32
    assert_array_equal(walks.text.sum(-1), 1)
    for clip in range(len(walks)):
        position, direction = walks.state["position"][clip], int(walks.text[clip, 0].argmax())
        expected = np.broadcast_to(steps[direction], (FRAMES - 1, 2))
        assert_array_equal((position[1:] - position[:-1] - expected) % panorama.MAP, 0)
        assert_array_equal(walks.state["direction"][clip], direction)
    assert len({int(text[0].argmax()) for text in walks.text}) > 4


def test_nothing_new_comes_into_view_once_the_camera_has_been_around():
    marks = panorama.clips(range(16), FRAMES).state["in_view_before"]
    around = panorama.MAP - tiles.VIEW + 1
    assert (marks[:, 1:around] == 0).any(axis=(2, 3)).all()
    straight = panorama.clips(range(16), FRAMES).state["direction"][:, 0] < 4
    assert not (marks[straight, around:] == 0).any() and (marks[:, around:] == 2).any(axis=(2, 3)).all()
