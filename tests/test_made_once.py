"""Clips of games are made once, kept whole or not at all, and refused where a file is another one."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from framelens.videos import VALIDATION_SEED
from framelens.videos.made_once import MadeOnce, cache_folder

FRAMES = 3


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A game whose clips show their seed, and the list of what it was asked to make."""
    monkeypatch.setenv("FRAMELENS_CACHE", str(tmp_path))
    asked = []

    def make(seeds):
        asked.append(seeds)
        video = np.zeros((len(seeds), FRAMES, 1, 2, 2), np.uint8)
        video[:] = (np.array(seeds) % 251)[:, None, None, None, None]
        return {"video": video, "actions": np.zeros((len(seeds), FRAMES), int), "seed": video[..., 0, 0, 0]}

    return MadeOnce("game", {"version": 1}, FRAMES, make, group=4), asked


def open_anew(kept, **changes):
    return MadeOnce("game", changes or kept.settings, FRAMES, kept.make, group=4)


def test_a_group_is_made_when_it_is_asked_for_and_read_after_that(made, tmp_path):
    kept, asked = made
    assert_array_equal(kept.clips([5, 6, 1], 2).state["seed"], [[5, 5], [6, 6], [1, 1]])
    assert asked == [[4, 5, 6, 7], [0, 1, 2, 3]]
    assert open_anew(kept).clips([7], 3).video.max() == np.float32(7) / 127.5 - 1
    kept.clips([VALIDATION_SEED + 1], 1)
    assert asked[2:] == [list(range(VALIDATION_SEED, VALIDATION_SEED + 4))]
    assert {file.name for file in (tmp_path / "game-1").iterdir()} == {
        "training-0000.npz", "training-0004.npz", "validation-0000.npz",
    }  # fmt: skip


def test_an_interrupted_group_leaves_nothing_and_is_made_again(made, tmp_path, monkeypatch):
    kept, asked = made
    kept.clips([0], 1)

    def interrupt(*args, **arrays):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(np, "savez_compressed", interrupt)
        kept.clips([4], 1)
    assert [file.name for file in (tmp_path / "game-1").iterdir()] == ["training-0000.npz"]
    open_anew(kept).clips([0, 4], 1)
    assert [seeds[0] for seeds in asked] == [0, 4, 4]


def test_a_folder_that_cannot_be_is_refused_before_any_clip_is_made(made, tmp_path, monkeypatch):
    kept, asked = made
    (tmp_path / "file").touch()
    monkeypatch.setenv("FRAMELENS_CACHE", str(tmp_path / "file"))
    with pytest.raises(ValueError, match="cannot be kept in .*file.game-1: set FRAMELENS_CACHE to a folder"):
        kept.clips([0], 1)
    assert not asked


@pytest.mark.parametrize("keep", [0, 0.5, 0.98])
def test_half_a_file_is_refused(made, tmp_path, keep):
    kept, _ = made
    kept.clips([0], 1)
    file = tmp_path / "game-1" / "training-0000.npz"
    file.write_bytes(file.read_bytes()[: int(keep * file.stat().st_size)])
    with pytest.raises(
        ValueError, match=r"training-0000.npz is damaged .*delete it, and it is made again"
    ) as error:
        open_anew(kept).clips([0], 1)
    assert "\n" not in str(error.value)


def test_a_file_of_other_settings_and_longer_clips_are_refused(made):
    kept, _ = made
    kept.clips([0], 1)
    with pytest.raises(
        ValueError, match=r"training-0000.npz was made with other settings .*delete the folder"
    ):
        open_anew(kept, version=1, speed=2).clips([0], 1)
    with pytest.raises(ValueError, match="clips of game have 3 frames, not 4"):
        kept.clips([0], 4)


def test_the_folder_is_the_users_unless_a_variable_names_another(monkeypatch, tmp_path):
    monkeypatch.setenv("FRAMELENS_CACHE", "")
    monkeypatch.setattr("pathlib.Path.home", lambda: tmp_path)
    assert cache_folder() == tmp_path / ".cache" / "framelens"
