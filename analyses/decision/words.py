"""Values with their intervals as text, for example `83 % [80, 86]`."""

from framelens.analyses.decision.kept import Value
from framelens.analyses.intervals import spell_interval


def percent(share: float) -> str:
    """`90 %`."""
    return f"{100 * share:.0f} %"


def spell(value: Value, digits: int = 2, scale: float = 1, unit: str = "") -> str:
    """`0.83 [0.80, 0.86]`, or `0.83` without an interval."""
    return spell_interval(scale * value.mean, scale * value.low, scale * value.high, digits, unit)


def spell_share(value: Value) -> str:
    """`83 % [80, 86]`."""
    return spell(value, 0, 100, " %")


def spell_count(value: Value) -> str:
    """`6 [6, 7]`."""
    return spell(value, 0)
