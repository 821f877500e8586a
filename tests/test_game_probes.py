"""Probes and scores read a world that is a game as they read the drawn ones; its frames are not square."""

import numpy as np
import pytest
import tiny

from framelens.probes.run.settings import Settings
from framelens.probes.run.work import open_session
from framelens.training.clip_scores import AGES, score_free_run, score_next_frame
from framelens.videos import worlds

pytest.importorskip("vizdoom")
doom = worlds.load("doom")


@pytest.mark.slow
def test_a_run_reads_the_state_of_doom_from_every_token(kept_clips, tmp_path):
    channels, height, width = doom.SHAPE
    network = tiny.model(layers=1, channels=channels, height=height, width=width, conditions=doom.CONDITIONS)
    file = tiny.checkpoint(tmp_path / "tiny.safetensors", network, videos="doom")
    settings = Settings(clips=1, frames=5, context=3, probed=1, experiments=("known_state",), quick=True)
    found = open_session(str(file), settings).measure(0)["known_state_features"]
    assert found.sizes["token"] == height * width // 16
    stored = [values.attrs["name"] for values in found.values() if "name" in values.attrs]
    assert stored == [*doom.targets(doom.clips([0], 3), 4)]
    assert np.isfinite(found.features.sel(network="trained")).all()


def test_the_memory_of_doom_is_scored_as_that_of_tiles(kept_clips):
    clips = doom.clips(range(8), 12)
    copy = clips.video[:, 3:-1]
    scores = score_next_frame(copy, clips, 4) | score_free_run(copy, clips, 4)
    errors = [scores[f"squared error, pixels {age}"] for age in AGES]
    assert all(np.isfinite(error.mean) and error.mean > 0 for error in errors)
    assert scores["PSNR of the copy of the last frame (dB)"].mean < 20
