"""`make check` says whether the output of a trained network is eps - x0, and what else it is."""

import pytest
import tiny

import framelens
from framelens.diffusion.source import Source
from framelens.probes.check.__main__ import main as check_main
from framelens.probes.check.examine import examine


def of_level(sigma):
    return sigma[:, None, None, None, None]


OUTPUTS = {
    "a velocity": lambda v, x, sigma: v,
    "a velocity of the other sign, x0 - eps": lambda v, x, sigma: -v,
    "the noise eps": lambda v, x, sigma: x + (1 - of_level(sigma)) * v,
    "the clean frame x0": lambda v, x, sigma: x - of_level(sigma) * v,
}
"""What a network may give, from its velocity."""


@pytest.fixture(scope="module")
def trained():
    return framelens.load("dense-tiles")


def convention(model, **options):
    (found,) = examine(model, ["convention"], **options)
    return found


@pytest.mark.parametrize("name", OUTPUTS)
def test_what_a_trained_network_gives_is_named(trained, name):
    class Other(type(trained)):
        def denoise(self, x, sigma, context):
            return OUTPUTS[name](super().denoise(x, sigma, context), x, sigma)

    plain = type(trained)
    trained.__class__ = Other
    try:
        found = convention(trained)
    finally:
        trained.__class__ = plain
    assert found.holds is (name == "a velocity"), found.line
    assert found.holds or (name in found.found and name in found.line and "give " in found.remedy)


def test_of_a_network_that_was_not_trained_nothing_is_said_unless_its_clips_are_given(tmp_path):
    model = framelens.load(str(tiny.checkpoint(tmp_path / "tiny.safetensors")))
    assert convention(model).holds is None and "not trained" in convention(model).found
    assert convention(model, videos="tiles").holds is False
    model.source = Source()
    assert convention(model).holds is None and "--videos" in convention(model).found


def test_clips_that_are_not_there_are_one_line(capsys):
    status = check_main(["--model", "dense-tiles", "--videos", "no/such/film.mp4"])
    said = capsys.readouterr()
    assert status == 2 and not said.out and "no/such/film.mp4" in said.err and said.err.count("\n") == 1
