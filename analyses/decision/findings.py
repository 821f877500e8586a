"""The two findings of the paper, each decided by three questions.

    for finding in findings({"step_similarity": ..., "noise_invariance": ..., "frame_attention": ...}):
        finding.claim, finding.verdict, finding.tests

The answer can be negative: only the tests of this run decide a claim.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import xarray as xr

from framelens.analyses.decision import little_attention, repeated_features
from framelens.analyses.decision.engine import Answer, answers
from framelens.analyses.decision.little_attention import AttentionEvidence
from framelens.analyses.decision.repeated_features import FeatureEvidence

DECISION = (
    "A test passes only if its whole 95% interval over clips is on the required side. Three passed tests: "
    "confirmed; two: partly confirmed; fewer: not confirmed. Undecided: tests that were not measured, or "
    "were measured on too few clips, could change the answer."
)
DATASETS = ("step_similarity", "noise_invariance", "frame_attention")
"""The datasets that decide."""


@dataclass(frozen=True)
class Finding:
    """A claim of the paper and its tests on this run."""

    claim: str
    tests: list[Answer]
    reasons: list[str]
    """Why the thresholds are what they are."""
    remarks: list[str] = field(default_factory=list)
    """Further facts for the reader; the reports fill it."""

    @property
    def verdict(self) -> str:
        """Confirmed, partly confirmed, not confirmed or undecided, by DECISION."""
        passed = sum(test.passed is True for test in self.tests)
        still_open = sum(test.passed is None for test in self.tests)
        verdicts = ["not confirmed", "not confirmed", "partly confirmed", "confirmed"]
        return verdicts[passed] if verdicts[passed] == verdicts[passed + still_open] else "undecided"


def findings(data: Mapping[str, xr.Dataset]) -> list[Finding]:
    """Finding 1 (features repeat over steps) and finding 2 (deep layers attend little to the past).

    Missing datasets leave tests open.
    """
    return [decide_repeated(FeatureEvidence(data)), decide_little(AttentionEvidence(data))]


def decide_repeated(evidence: FeatureEvidence) -> Finding:
    """Finding 1: early and middle layers repeat their features over denoising steps."""
    return Finding(
        repeated_features.CLAIM, answers(repeated_features.QUESTIONS, evidence), repeated_features.REASONS
    )


def decide_little(evidence: AttentionEvidence) -> Finding:
    """Finding 2: deep layers attend little to earlier frames."""
    return Finding(
        little_attention.CLAIM, answers(little_attention.QUESTIONS, evidence), little_attention.REASONS
    )
