"""NAME=VALUE as a user writes it on a command line, and the text of a value as the value that it means.

    parse_assignments(["window=8", "fusion=add"])       # {"window": 8, "fusion": "add"}
    convert("window", "8", int)                         # 8

Imports nothing heavy.
"""

import json
from collections.abc import Sequence
from types import NoneType
from typing import Any

from framelens.records.checks import WORDS, is_of, plain_types

NAMED = {"true": True, "false": False, "none": None, "null": None}


def parse_assignments(pairs: Sequence[str], flag: str = "--set") -> dict[str, Any]:
    """Values by name, in alphabetical order; the last of a name counts. ValueError for other text."""
    values: dict[str, Any] = {}
    for pair in pairs:
        name, is_given, text = pair.partition("=")
        if not is_given or not name.isidentifier():
            raise ValueError(f"{flag} takes NAME=VALUE, got {pair!r}")
        values[name] = parse_value(text)
    return dict(sorted(values.items()))


def parse_value(text: str) -> Any:
    """True, false, none, null, numbers and lists as such, all else as text."""
    if text.lower() in NAMED:
        return NAMED[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    if text.startswith("["):
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text


def convert(name: str, value: Any, kind: Any) -> Any:
    """The value, parsed if it is text, as `kind`: int, float, bool, str, or one of these | None.

    A number is also text. `kind` None accepts every value. ValueError for a value of another type.
    """
    allowed = [] if kind is None else plain_types(kind)
    if str in allowed and value is not None:
        return str(value)
    parsed = parse_value(value) if isinstance(value, str) else value
    if kind is None or (parsed is None and NoneType in allowed):
        return parsed
    for one in allowed:
        if is_of(parsed, one):
            return one(parsed)
    raise ValueError(f"{name} must be {' or '.join(map(WORDS.__getitem__, allowed))}, got {value!r}")
