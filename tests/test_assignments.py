"""NAME=VALUE on a command line: one meaning for every command, and one line for what has none."""

from types import ModuleType

import pytest

from framelens.models.loading.read import complete_options
from framelens.probes.run.options import parser, settings_of
from framelens.records.assignments import convert, parse_assignments, parse_value
from framelens.records.checks import check_types, suggest


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8", 8), ("-3", -3), ("0.5", 0.5), ("1e-3", 1e-3), ("true", True), ("False", False), ("none", None),
        ("null", None), ("[4, 6]", [4, 6]), ("[4, 6", "[4, 6"), ("add", "add"), ("", ""), ("a=b", "a=b"),
    ],
)  # fmt: skip
def test_text_is_the_value_that_it_spells(text, value):
    parsed = parse_value(text)
    assert (parsed, type(parsed)) == (value, type(value))
    assert parse_assignments([f"x={text}"]) == {"x": value}


def test_the_last_value_of_a_name_counts_and_names_are_in_order():
    assert list(parse_assignments(["b=1", "a=2", "b=3"]).items()) == [("a", 2), ("b", 3)]


@pytest.mark.parametrize("pair", ["", "height", "=4", "a b=1", "1=2"])
def test_what_has_no_name_or_no_value_is_refused(pair):
    with pytest.raises(ValueError, match="NAME=VALUE"):
        parse_assignments([pair])


ACCEPTED = [
    ("8", int, 8), (8, int, 8), ("8", float, 8.0), (8, float, 8.0), ("true", bool, True), (8, str, "8"),
    ("8", str, "8"), ("null", int | None, None), (None, int | None, None), ("8", int | None, 8),
    ("x", None, "x"), ("8", None, 8),
]  # fmt: skip
REFUSED = [
    ("x", int), ("8.5", int), (8.5, int), (True, int), ("null", int), ("x", float), (True, float), (1, bool),
    ("1", bool), (None, str), ("x", int | None), ("1.5", int | None),
]  # fmt: skip


@pytest.mark.parametrize(("value", "kind", "expected"), ACCEPTED)
def test_a_value_becomes_one_of_its_type(value, kind, expected):
    got = convert("x", value, kind)
    assert (got, type(got)) == (expected, type(expected))


@pytest.mark.parametrize(("value", "kind"), REFUSED)
def test_a_value_of_another_type_is_refused_by_name(value, kind):
    with pytest.raises(ValueError, match="^window must be "):
        convert("window", value, kind)


def test_types_are_checked_as_they_are_annotated():
    kinds = {"layers": int | None, "rate": float, "axes": tuple[int, int], "name": str}
    check_types({"layers": None, "rate": 1, "axes": [1, 2], "name": ""}, kinds)
    for name, value in (("layers", "x"), ("rate", True), ("axes", 3), ("name", 3)):
        with pytest.raises(ValueError, match=f"^{name} must be "):
            check_types({name: value}, kinds)


def test_near_names_are_suggested():
    assert "warmup" in suggest("warmpu", ["warmup", "steps"]) and suggest("zzz", ["warmup"]) == ""


def test_a_probe_and_a_model_read_the_same_text_alike(tmp_path):
    family = ModuleType("framelens.models.mine")
    family.DEFAULTS = {"height": 4, "share": 0.5, "ask": False, "frames": None}
    pairs = ["height=8", "share=1", "ask=true", "frames=3"]
    settings, _ = settings_of(
        {k: v for k, v in vars(parser().parse_args(["--set", *pairs])).items()
         if k not in ("model", "run", "out", "workers")}
    )  # fmt: skip
    texts = dict(pair.split("=") for pair in pairs)
    asked = complete_options(tmp_path, family, texts)
    assert asked == complete_options(tmp_path, family, dict(settings.set)) == {
        "height": 8, "share": 1.0, "ask": True, "frames": 3
    }  # fmt: skip
