"""Settings checked by one table: the name of a field, the condition that it must meet, the sentence if not.

    RULES = {"clips": at_least(1), "shift": must(lambda shift: shift > 0, "be positive")}
    check(settings, RULES, spell_as_flag)       # ValueError: --clips must be at least 1, got 0

Imports nothing heavy.
"""

import math
from collections.abc import Callable, Collection, Mapping
from difflib import get_close_matches
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, NamedTuple, get_args, get_origin

WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    dict: "a mapping of names to values",
    tuple: "a list",
    NoneType: "null",
}
"""How a message names a type."""

MOST_STEPS, MOST_FRAMES, MOST_CLIPS, MOST_SEED = 10_000, 1_000_000, 1_000_000, 2**32 - 1
"""The largest number of denoising steps, frames of a clip and clips, and the largest seed. Their memory is
checked where it is used."""


class Rule(NamedTuple):
    """A condition of one value, and the sentence about a value that does not meet it."""

    holds: Callable[[Any, Any], bool]
    """Of the value and all settings."""
    sentence: Callable[[str, Any, Any], str]
    """Of the name as the user writes it, the value and all settings."""


def check(settings: Any, rules: Mapping[str, Rule], spell: Callable[[str], str] = str) -> None:
    """ValueError with the sentence of the first rule, in the order of the table, that a field breaks."""
    for name, rule in rules.items():
        value = getattr(settings, name)
        if not rule.holds(value, settings):
            raise ValueError(rule.sentence(spell(name), value, settings))


def spell_as_flag(name: str) -> str:
    """A field's name as the option of a command: stats_steps is --stats-steps."""
    return "--" + name.replace("_", "-")


def must(holds: Callable[[Any], bool], what: str) -> Rule:
    """The rule that a value must `what`, for example "be positive"."""
    return Rule(lambda value, _: holds(value), lambda name, value, _: f"{name} must {what}, got {value}")


def at_least(least: float) -> Rule:
    """The rule that a number is `least` or more."""
    return must(lambda value: value >= least, f"be at least {least}")


def between(least: float, most: float) -> Rule:
    """The rule that a number is from `least` to `most`."""
    return must(lambda value: least <= value <= most, f"be from {least} to {most}")


def one_of(kind: str, names: Callable[[], Collection[str]]) -> Rule:
    """The rule that a value is one of these names; `kind` says of what, for example "experiment"."""
    return Rule(
        lambda value, _: value in names(),
        lambda _, value, __: f"no {kind} is called {value!r}; there are {', '.join(names())}",
    )


def optional(rule: Rule) -> Rule:
    """The rule for values that are given; None meets it."""
    return Rule(lambda value, settings: value is None or rule.holds(value, settings), rule.sentence)


def each(rule: Rule) -> Rule:
    """The rule for every part of a value; the sentence is about the first part that breaks it."""

    def sentence(name: str, value: Any, settings: Any) -> str:
        return rule.sentence(name, next(part for part in value if not rule.holds(part, settings)), settings)

    return Rule(lambda value, settings: all(rule.holds(part, settings) for part in value), sentence)


def check_types(values: Mapping[str, Any], kinds: Mapping[str, Any]) -> None:
    """ValueError for the first value that is not of the type (`typing.get_type_hints`) of its name.

    A whole number is a number, True and False are no numbers, and a list may stand for a tuple.
    """
    for name, value in values.items():
        allowed = plain_types(kinds[name])
        if not any(is_of(value, kind) for kind in allowed):
            raise ValueError(f"{name} must be {' or '.join(map(WORDS.__getitem__, allowed))}, got {value!r}")


def plain_types(kind: Any) -> list[type]:
    """The types of an annotation without what they hold: int | None is int and NoneType."""
    parts = get_args(kind) if isinstance(kind, UnionType) else (kind,)
    return [get_origin(part) or part for part in parts]


def is_of(value: Any, kind: type) -> bool:
    """Whether a value is of one of the types of WORDS."""
    if kind in (int, float):
        return isinstance(value, {int: Integral, float: Real}[kind]) and not isinstance(value, bool)
    return isinstance(value, (list, tuple) if kind is tuple else kind)


STEPS, FRAMES, CLIPS = (between(1, most) for most in (MOST_STEPS, MOST_FRAMES, MOST_CLIPS))
SEED = between(0, MOST_SEED)
POSITIVE = must(lambda value: 0 < value < math.inf, "be positive and finite")
GUIDANCE = must(lambda scale: 0 <= scale < math.inf, "be 0 or more and finite")


def suggest(name: str, names: Collection[str]) -> str:
    """The end of a sentence about an unknown name: "; did you mean warmup?", empty if none is near."""
    near = get_close_matches(name, names)
    return f"; did you mean {' or '.join(near)}?" if near else ""
