"""Actions read from pairs of frames: of true frames nearly all, of frames without them none."""

import numpy as np
import pytest

from framelens import videos
from framelens.training.action_readout import fit_actions, score_actions
from framelens.videos import Clips, worlds

CONTEXT, FRAMES = 2, 8
TRUE, FREE, BLIND = (
    f"actions read, {name} (share)" for name in ("true frames", "free run", "always the most frequent action")
)


@pytest.fixture(scope="module")
def readout():
    return fit_actions(worlds.load("tiles").clips(range(64), FRAMES))


@pytest.fixture(scope="module")
def held_out():
    seeds = range(videos.VALIDATION_SEED, videos.VALIDATION_SEED + 12)
    return worlds.load("tiles").clips(seeds, FRAMES)


def test_actions_of_true_held_out_frames_are_read(readout, held_out):
    scores = score_actions(readout, held_out.video[:, CONTEXT:], held_out, CONTEXT)
    assert scores[TRUE].mean > 0.95 and scores[FREE] == scores[TRUE]
    assert scores[BLIND].mean < 0.6 and scores[TRUE].clips == 12


def test_a_video_that_follows_other_actions_does_not_follow_these(readout, held_out):
    other = np.roll(held_out.video, 1, axis=0)[:, CONTEXT:]
    assert score_actions(readout, other, held_out, CONTEXT)[FREE].mean < 0.6


def test_noise_in_the_frames_lowers_the_accuracy_little(readout, held_out):
    noise = 0.2 * np.random.default_rng(0).normal(size=held_out.video[:, CONTEXT:].shape)
    noisy = (held_out.video[:, CONTEXT:] + noise).astype(np.float32)
    assert score_actions(readout, noisy, held_out, CONTEXT)[FREE].mean > 0.9


def test_the_read_out_of_frames_does_not_depend_on_their_scale(readout, held_out):
    assert (readout.read(held_out.video) == readout.read(held_out.video * 0.25)).all()


def test_frames_that_show_nothing_are_read_as_the_most_frequent_action():
    actions = np.array([[0, 1, 1, 0, 1], [0, 1, 1, 1, 1]])
    still = Clips(np.zeros((2, 5, 3, 2, 2), np.float32), actions)
    scores = score_actions(fit_actions(still), still.video[:, CONTEXT:], still, CONTEXT)
    assert scores[TRUE] == scores[BLIND]
