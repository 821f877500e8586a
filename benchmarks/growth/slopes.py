"""Slopes on logarithmic axes: 1 is a cost in proportion, 0 a constant one.

growth = Growth("seconds, all statistics", "steps", (8, 16, 32), [[...], [...], [...]], expected="1")
growth.slope, growth.low, growth.high
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from framelens.benchmarks import measure


@dataclass(frozen=True)
class Growth:
    """A cost at several values of what it may grow with, in one or more rounds."""

    cost: str
    unit: str
    against: str
    values: Sequence[int]
    rounds: Sequence[Sequence[float]]
    """For each value, its rounds."""
    expected: str

    @cached_property
    def slopes(self) -> list[float]:
        """The slope of each round: of the line through the logarithms, by least squares."""
        costs = np.log(np.asarray(self.rounds, float))
        return [float(slope) for slope in np.polyfit(np.log(self.values), costs, 1)[0]]

    @property
    def slope(self) -> float:
        """The median over rounds."""
        return float(np.median(self.slopes))

    @property
    def interval(self) -> tuple[float, float] | None:
        """An interval of that median; None for one round."""
        return measure.median_interval(self.slopes) if len(self.slopes) > 1 else None

    @property
    def medians(self) -> list[float]:
        """The cost at each value."""
        return [float(np.median(costs)) for costs in self.rounds]

    def describe(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "cost": self.cost, "unit": self.unit, "against": self.against, "values": list(self.values),
            "medians": self.medians, "slope": self.slope, "interval": self.interval, "slopes": self.slopes,
            "expected": self.expected,
        }  # fmt: skip


def table_text(found: Sequence[Growth], rounds: int) -> str:
    """The slopes as a table in markdown."""
    ends = "95 %" if rounds >= measure.LEAST else "smallest and largest"
    lines = [f"| cost | against | slope [{ends}] | expected | at the values |", "|---|---|---|---|---|"]
    for each in found:
        ends = "" if each.interval is None else " [{:.2f}, {:.2f}]".format(*each.interval)
        points = zip(each.values, each.medians, strict=True)
        at = ", ".join(f"{value}: {cost:.3g} {each.unit}" for value, cost in points)
        lines.append(f"| {each.cost} | {each.against} | {each.slope:.2f}{ends} | {each.expected} | {at} |")
    return "\n".join(lines)
