"""A recipe with a value that cannot be is refused in one line that names it, before anything is written."""

from dataclasses import fields

import pytest
import tiny

from framelens.models import dense
from framelens.training import recipes
from framelens.training.__main__ import _recipe, main, parser
from framelens.training.build import build
from framelens.training.recipes import RECIPES, RELEASED, Recipe, recipe

COUNT, RATE, SHARE = ["many", "0"], ["fast", "0"], ["some", "1.5"]
HOSTILE = {
    "network": ["3", "farlong"],
    "videos": ["3", "films"],
    "preset": ["3", "huge"],
    "architecture": ["3", "[1]"],
    "initial": ["3", "nowhere.safetensors"],
    "teacher": ["3", "nowhere.safetensors"],
    "objective": ["3", "adversarial"],
    "levels": COUNT,
    "student_steps": COUNT,
    "given_frames": ["many", "-1"],
    "fake_steps": COUNT,
    "fake_learning_rate": RATE,
    "saturation_rise": RATE,
    "saturation_patience": COUNT,
    "train_only": ["3", "neck", "decoder"],
    "lora_rank": ["x", "4"],
    "lora_alpha": RATE,
    "cut_from": ["x", "9"],
    "steps": COUNT,
    "batch": COUNT,
    "frames": COUNT,
    "learning_rate": RATE,
    "muon": ["3", "maybe"],
    "muon_learning_rate": RATE,
    "decoder_rate": RATE,
    "beta1": ["x", "1"],
    "beta2": ["x", "1"],
    "weight_decay": ["x", "-1"],
    "noise_draws": COUNT,
    "clean_history": SHARE,
    "warmup": COUNT,
    "decay_share": SHARE,
    "clip": ["x", "0"],
    "ema": ["x", "1"],
    "ema_warmup": ["3", "maybe"],
    "uniform_share": SHARE,
    "condition_dropout": SHARE,
    "autocast": ["3", "foo"],
    "draws_apart": ["3", "maybe"],
    "accumulate": ["0", "-1", "1.5"],
    "recompute": ["3", "maybe"],
    "seed": ["x", "-1"],
    "save_every": COUNT,
    "keep_every": COUNT,
    "sample_every": COUNT,
}
"""Of every field a value of another type and one out of range, as a user would write it."""
MORE = [
    f"{name}={value}"
    for name, kind in ((field.name, field.type) for field in fields(Recipe))
    for value in {
        "int": ["-1", "0.5", "true", "null", "nan"],
        "float": ["-1", "nan", "true", "null"],
        "bool": ["1", "null"],
        "int | None": ["-1", "0.5", "true"],
    }.get(str(kind), [])
    if name not in ("steps", "batch", "seed")
]
OTHERS = [
    "seed=1", "steps=3", "batch=2", "name=x", "warmpu=3", "fusion=add", "heads=x", "heads=0", "patch=0",
    "layers=x", "d_model=7", "rope_axes=3", "rope_axes=[1,2,3]", "rope_theta=x", "mlp_width=-4", "window=0",
    "conditions=3", "channels=1", "height=40", "warmup", "=3", "learning_rate=inf",
]  # fmt: skip


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setitem(dense.PRESETS, "test", tiny.config())
    monkeypatch.setitem(
        recipes.RECIPES, "short", Recipe("dense", "tiles", "test", steps=2, batch=1, frames=3)
    )


@pytest.fixture
def refused(tmp_path, capsys):
    """What the command says of that --set, as the only thing that it does."""

    def run(*settings):
        out = tmp_path / "train"
        assert main(["--model", "short", "--out", str(out), "--set", *settings]) == 2
        said = capsys.readouterr()
        assert said.out == "" and said.err.startswith("framelens train: ") and said.err.count("\n") == 1
        assert not list(tmp_path.iterdir())
        return said.err

    return run


def test_no_field_is_forgotten():
    assert HOSTILE.keys() == {field.name for field in fields(Recipe)}


@pytest.mark.parametrize("setting", [f"{name}={value}" for name in HOSTILE for value in HOSTILE[name]])
def test_a_hostile_value_of_every_field_is_one_line(refused, setting):
    name, _, value = setting.partition("=")
    line = refused(setting)
    assert value.strip("[]") in line and (name in line or f"called {value!r}" in line or name == "initial")


@pytest.mark.parametrize("setting", MORE)
def test_numbers_out_of_range_and_values_of_other_types_are_named(refused, setting):
    assert refused(setting).startswith(f"framelens train: {setting.partition('=')[0]} must be ")


@pytest.mark.parametrize("setting", OTHERS)
def test_names_and_architectures_that_cannot_be_are_one_line(refused, setting):
    assert setting.partition("=")[0] in refused(setting)


@pytest.mark.parametrize(("given", "meant"), [("warmpu", "warmup"), ("layer", "layers"), ("muon_lr", "muon")])
def test_an_unknown_name_is_answered_with_near_ones(refused, given, meant):
    said = refused(f"{given}=1")
    assert f" {meant}" in said.partition("did you mean")[2]


@pytest.mark.parametrize("option", ["--steps=0", "--batch=-1", "--threads=0", "--seed=-1", f"--seed={2**40}"])
def test_options_are_checked_as_settings_are(tmp_path, capsys, option):
    assert main(["--model", "short", "--out", str(tmp_path / "train"), option]) == 2
    assert option.partition("=")[0].lstrip("-") in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_recipes_are_checked_however_they_are_made():
    for changes in ({"warmup": 0}, {"seed": -1}, {"learning_rate": float("nan")}, {"autocast": "foo"}):
        with pytest.raises(ValueError, match=next(iter(changes)).replace("autocast", "arithmetic")):
            recipe("short", **changes)


def test_what_a_recipe_accepts_is_left_as_it_is():
    assert recipe("short", learning_rate=1, cut_from=None, ema=0.0, clip=float(2)).learning_rate == 1
    for name in RECIPES:
        assert recipe(name) == RECIPES[name]
        recipe(name, **RELEASED)


def chosen(*arguments):
    return _recipe(parser().parse_args([*arguments]))


def test_null_removes_what_a_shipped_recipe_sets():
    cut = chosen("--model", "dense-tiles-cut", "--set", "initial=", "cut_from=null")
    assert recipe("dense-tiles-cut").cut_from == 5
    assert (cut.cut_from, cut.initial) == (None, "")
    assert build(cut).geometry.layers > 0


def test_values_have_the_type_of_their_field():
    made = chosen(
        "--model", "short", "--seed", "3", "--set", "learning_rate=1", "window=2", "rope_axes=[4,2,2]"
    )
    assert (made.seed, made.learning_rate, type(made.learning_rate)) == (3, 1.0, float)
    assert made.architecture == {"window": 2, "rope_axes": [4, 2, 2]}
    build(made)
