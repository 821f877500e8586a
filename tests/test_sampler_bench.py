"""The benchmark of our sampler: the plain one makes the same frame and launches more."""

import json

import pytest
from refusals import assert_refused

from framelens.benchmarks.sampler import __main__ as command
from framelens.benchmarks.sampler import frames, profile
from framelens.benchmarks.sampler.reference import PlainSampler
from framelens.models import dense

FEW = ["--preset", "tiny", "--history", "2", "--steps", "2", "--repeats", "1"]


def test_names_that_the_command_knows_without_torch_are_those_of_the_arms():
    assert frames.ARMS == command.ARMS and tuple(frames.PRESETS) == command.PRESETS


@pytest.mark.slow
def test_both_samplers_make_the_same_frame_and_ours_copies_less(tmp_path, capsys):
    asked = [*FEW, "--arms", "dense", "token_concat", "--out", str(tmp_path)]
    assert command.main(asked) == 0
    document = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert document == json.loads((tmp_path / command.FILE).read_text())
    assert list(document["arms"]) == ["dense", "token_concat"]
    for row in document["arms"].values():
        assert 0 < row["difference"] < command.EQUAL and row["ratio"]["cpu_seconds"]["median"] > 0
        launched = {
            name: {kind: each["launches"] for kind, each in rows.items()}
            for name, rows in row["operations"].items()
        }
        assert launched["ours"]["attention"] == launched["plain"]["attention"] > 0
        for kind in ("copies", "matrix products"):
            assert launched["ours"][kind] < launched["plain"][kind]
    assert (tmp_path / "sampler.md").read_text().count("\n| ") == 2 + 2 + 2 * (len(profile.KINDS) + 1)
    assert command.main(asked) == 2 and "--out" in capsys.readouterr().err


def test_frames_that_differ_are_not_timed():
    pair = frames.SampledFrame(frames.PRESETS["tiny"], "dense", history=2, steps=2, device="cpu", seed=0)
    pair.past = pair.reference.start(1)  # the plain sampler forgets a frame
    with pytest.raises(ValueError, match="differ by"):
        command.measure_arm(pair, repeats=1, device="cpu", seed=0)


def test_the_plain_sampler_names_what_it_does_not_have():
    with pytest.raises(ValueError, match="no conditions"):
        PlainSampler(dense.build(dense.config("tiny", conditions=5)))


@pytest.mark.parametrize(
    ("arguments", "stated"),
    [
        (["--repeats", "0"], "--repeats .* 1"),
        (["--arms", "prefix"], "no arm .* 'prefix'"),
        (["--preset", "small"], "no preset .* 'small'"),
        (["--device", "cuda:99"], "cuda"),
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments, stated, tmp_path, capsys):
    assert_refused(command.main, [*FEW, *arguments], stated, capsys, tmp_path / "out")
