"""Progress within a clip: shares of the experiments, files that come and go, a bar that moves on."""

import math
import time

import pytest
import tiny

from framelens.probes.run.progress import ClipProgress, clips_now, forget, watch
from framelens.probes.run.settings import Settings
from framelens.probes.run.work import Session

SHARES = {"cut": 0.75, "readout": 0.25}


class Bar:
    total, n, text = 4, 0.0, ""

    def set_postfix_str(self, text, refresh):
        self.text = text

    def refresh(self):
        pass

    def write(self, line):
        self.lines = [*getattr(self, "lines", []), line]


def test_a_clip_is_as_far_as_the_experiments_that_ended(tmp_path):
    with ClipProgress(tmp_path, 3, SHARES) as progress:
        assert clips_now(tmp_path) == {}
        progress.begin("cut")
        assert clips_now(tmp_path) == {3: (0.0, "cut")}
        progress.begin("readout")
        assert clips_now(tmp_path) == {3: (0.75, "readout")}
    assert clips_now(tmp_path) == {} and not list(tmp_path.iterdir())


def test_a_failed_clip_leaves_no_file_and_those_of_killed_processes_are_removed(tmp_path):
    with pytest.raises(ValueError), ClipProgress(tmp_path, 0, SHARES) as progress:
        progress.begin("cut")
        raise ValueError
    assert not list(tmp_path.iterdir())
    ClipProgress(tmp_path, 1, SHARES).begin("cut")
    (tmp_path / ".now-0002").write_bytes(b"")
    assert clips_now(tmp_path) == {1: (0.0, "cut")}
    forget(tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_bar_shows_finished_clips_and_parts(tmp_path):
    bar = Bar()
    with ClipProgress(tmp_path, 2, SHARES) as progress, watch(bar, tmp_path, lambda: 1) as look:
        progress.begin("cut")
        progress.begin("readout")
        look()
        assert bar.n == pytest.approx(1.75) and bar.text == "clip 2: readout"
        began = time.monotonic()
        progress.begin("rest")
        while bar.n < 2 and time.monotonic() - began < 20:
            time.sleep(0.05)
        assert bar.n == 2, "the bar moves by itself"


def test_shares_are_those_of_the_layer_evaluations():
    model = tiny.model()
    settings = Settings(clips=1, steps=3, context=2, probed=1, experiments=("cut", "rollouts", "readout"))
    session = Session({"trained": model, "random": model}, [], settings, 5)
    assert set(session.shares) == {"cut", "rollouts", "readout"}
    assert math.isclose(sum(session.shares.values()), 1) and all(
        share > 0 for share in session.shares.values()
    )
