"""Files of scores as a table: side by side, over seeds, and refused where settings or recipes differ."""

import json
import re

import pytest

from framelens.reports import compare
from framelens.reports.score_table import format_scores

SETTINGS = {
    "model": ["m"],
    "clips": 8,
    "seed": 0,
    "videos": None,
    "frames": None,
    "features": None,
    "steps": None,
}


@pytest.fixture
def file(tmp_path):
    """Writes a file of scores of one network; the PSNR is 20 dB and the seed."""

    def write(name, seed=0, settings=(), recipe=(), held=(), scores=()):
        measures = {"PSNR": {"mean": 20.0 + seed, "low": 19.0, "high": 22.0, "clips": 8}}
        measures |= {score: {"mean": 1.0, "low": None, "high": None, "clips": 8} for score in scores}
        measures["PSNR by frame"] = [{"frame": 4, "mean": 20.0}]
        trained = {"network": "dense", "videos": "tiles", "frames": 12, "batch": 6, "seed": seed} | dict(
            recipe
        )
        values = {
            "kind": "evaluate",
            "settings": SETTINGS | dict(settings),
            "models": {name: {"training": {"recipe": trained, "step": 100}}},
            "measures": {name: measures, f"{name}, cut from 1": measures},
            "features": {},
            "lpips": {},
        } | dict(held)
        if "cut" not in dict(settings):
            del values["measures"][f"{name}, cut from 1"]
        path = tmp_path / f"{name}-{len(list(tmp_path.iterdir()))}.json"
        path.write_text(json.dumps(values))
        return path

    return write


def refusal(capsys, *arguments):
    assert compare.main([str(argument) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("framelens compare: ") and error.count("\n") == 1
    return error


def test_networks_stand_side_by_side(file, capsys):
    one, two = file("dense", scores=["SSIM"]), file("scd", seed=1)
    assert compare.main([str(one), str(two)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| score | dense | scd |"
    assert lines[2] == "| PSNR | 20.0000 [19.0000, 22.0000] | 21.0000 [19.0000, 22.0000] |"
    assert lines[3] == "| SSIM | 1.0000 |  |" and len(lines) == 4
    again = file("dense")
    assert format_scores([one, again]).startswith(f"| score | dense ({one}) | dense ({again}) |")


def test_a_network_in_a_variant_keeps_the_videos_of_its_training(file):
    cut = file("dense", settings={"cut": 1})
    assert "| score | dense | dense, cut from 1 |" in format_scores([cut])
    stated = file("other", settings={"videos": "tiles", "frames": 12, "cut": 1})
    assert format_scores([cut, stated]).count("20.0000") == 4


def test_seeds_of_one_recipe_have_a_mean_and_a_range(file):
    files = [file("dense", seed=seed, scores=["SSIM"] * (seed < 2)) for seed in (0, 1, 5)]
    lines = format_scores(files, over_seeds=True).splitlines()
    assert lines[0] == "| score | 3 seeds |"
    assert lines[2:] == ["| PSNR | 22.0000 (20.0000 to 25.0000) |"], "SSIM is not in all files"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"recipe": {"batch": 4}}, "was trained with batch 4, dense in .* was trained with 6: seeds of one"),
        ({"recipe": {"seed": 0}}, "seed 0 is given twice"),
        (
            {"settings": {"clips": 4}},
            "was scored with clips 4, dense in .* was scored with 8: score both alike",
        ),
        ({"settings": {"videos": "digits"}}, "was scored with videos digits, .* tiles"),
        ({"held": {"features": {"sha256": {"a.py": "1"}}}}, "was scored with features"),
        ({"held": {"models": {}}}, "videos None|names no recipe"),
    ],
)
def test_seeds_of_unequal_recipes_and_scores_of_unequal_settings_are_refused(file, capsys, change, said):
    error = refusal(capsys, file("dense"), file("dense", seed=1, **change), "--over-seeds")
    assert re.search(said, error), error


def test_other_files_are_refused_in_one_line(file, tmp_path, capsys):
    other = tmp_path / "other.json"
    assert "does not exist" in refusal(capsys, other)
    for content in ("{}", '{"kind": "probe"}', '{"kind": "evaluate"}'):
        other.write_text(content)
        assert "is not a file of framelens evaluate --out" in refusal(capsys, other)
    other.write_text("[")
    assert "is not valid JSON" in refusal(capsys, other)
    assert "needs two networks or more" in refusal(capsys, file("dense"), "--over-seeds")
    assert "--over-seeds is of files of scores" in refusal(capsys, "dense-tiles/default", "--over-seeds")
