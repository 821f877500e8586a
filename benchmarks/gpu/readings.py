"""One measured value of a GPU's benchmark, as a row of its table.

Reading("dense, frame", 12.3, "ms", low=12.1, high=12.9, beside="what it is compared with")
"""

from collections.abc import Iterable
from dataclasses import dataclass

from framelens.benchmarks import measure


class CannotMeasure(Exception):
    """A section that cannot be measured now, with the reason; a later run of the command tries it again."""


@dataclass(frozen=True)
class Reading:
    """A value with its unit, the ends of its interval, and what stands beside it."""

    what: str
    value: float | str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    beside: str = ""

    @property
    def text(self) -> str:
        """The value as a cell of a table."""
        if isinstance(self.value, str):
            return self.value
        ends = "" if self.low is None or self.high is None else f" [{self.low:.3g}, {self.high:.3g}]"
        return f"{self.value:.3g}{ends}{f' {self.unit}' if self.unit else ''}"


def read_rounds(what: str, values: Iterable[float], unit: str, scale: float = 1, beside: str = "") -> Reading:
    """The median of the rounds, with its interval."""
    scaled = [scale * float(value) for value in values]
    low, high = measure.median_interval(scaled)
    return Reading(what, measure.spread(scaled)["median"], unit, low, high, beside)
