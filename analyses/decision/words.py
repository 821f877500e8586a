"""Values with their intervals as sentences say them, for example `83 % [80, 86]`."""

import numpy as np

from framelens.analyses.decision.kept import Value


def percent(share: float) -> str:
    """`90 %`."""
    return f"{100 * share:.0f} %"


def spelled(value: Value, digits: int = 2, scale: float = 1, unit: str = "") -> str:
    """`0.83 [0.80, 0.86]`, or `0.83` where there is no interval."""
    low, high = (f"{scale * end:z.{digits}f}" for end in (value.low, value.high))
    interval = "" if np.isnan(value.low) else f" [{low}, {high}]"
    return f"{scale * value.mean:z.{digits}f}{unit}{interval}"


def shared(value: Value) -> str:
    """`83 % [80, 86]`."""
    return spelled(value, 0, 100, " %")


def counted(value: Value) -> str:
    """`6 [6, 7]`."""
    return spelled(value, 0)
