"""The two findings in words, each decided by three tests with stated thresholds.

    for finding in findings(run):
        finding.claim, finding.verdict, finding.tests, finding.remarks

The answer can be no: a claim stands only on what its tests show in this run.
"""

from dataclasses import dataclass
from importlib import import_module

import numpy as np
import xarray as xr

from framelens.reports.drawing.layers import Depth, depth_of
from framelens.reports.runs import Run

DECISION = (
    "A test passes only if the whole 95% interval over clips does. Three passed tests: confirmed; two: "
    "partly confirmed; fewer: not confirmed. Where tests that were not measured, or on too few clips, could "
    "change the answer: undecided."
)


@dataclass(frozen=True)
class Check:
    """One question put to the data; passed is None where the run cannot answer it."""

    question: str
    measured: str
    passed: bool | None


@dataclass(frozen=True)
class Finding:
    """A claim of the paper, its tests on this run, and what else a reader should know."""

    claim: str
    tests: list[Check]
    remarks: list[str]
    reasons: list[str]

    @property
    def verdict(self) -> str:
        """Confirmed, partly confirmed, not confirmed or undecided, by DECISION."""
        passed = sum(test.passed is True for test in self.tests)
        still_open = sum(test.passed is None for test in self.tests)
        answers = ["not confirmed", "not confirmed", "partly confirmed", "confirmed"]
        return answers[passed] if answers[passed] == answers[passed + still_open] else "undecided"


def findings(run: Run) -> list[Finding]:
    """Finding 1 (features repeat over steps) and finding 2 (deep layers attend little to the past)."""
    return [import_module(f"framelens.reports.findings.{name}").find(run) for name in ("steps", "frames")]


def above(value: xr.Dataset, threshold: float) -> bool | None:
    """Whether the whole interval lies above the threshold; None where there is no interval."""
    return None if np.isnan(value["low"]) else bool(value["low"] > threshold)


def below(value: xr.Dataset, threshold: float) -> bool | None:
    """Whether the whole interval lies below the threshold; None where there is no interval."""
    return None if np.isnan(value["high"]) else bool(value["high"] < threshold)


def unmeasured(question: str, what: str) -> Check:
    """The open test of a run that lacks its data."""
    return Check(question, f"This run did not measure {what}.", None)


def part(depth: Depth, start: float, stop: float) -> list[int]:
    """Positions of the blocks between two shares of the depth, at least one."""
    blocks = depth.blocks
    first = min(round(start * len(blocks)), len(blocks) - 1)
    return blocks[first : max(round(stop * len(blocks)), first + 1)]


def mean_of_part(values: xr.DataArray, start: float, stop: float) -> xr.DataArray:
    """Mean over the blocks between two shares of the depth."""
    return values.isel(layer=part(depth_of(values), start, stop)).mean("layer")
