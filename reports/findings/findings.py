"""The two findings of a run in words; analyses/decision decides them.

for finding in findings(run):
    finding.claim, finding.verdict, finding.tests, finding.remarks
"""

from framelens.analyses.decision import findings as decision
from framelens.analyses.decision.findings import Finding
from framelens.analyses.decision.little_attention import AttentionEvidence
from framelens.analyses.decision.repeated_features import FeatureEvidence
from framelens.reports.findings import frames, steps
from framelens.reports.runs import Run


def findings(run: Run) -> list[Finding]:
    """Finding 1 (features repeat over steps) and finding 2 (deep layers attend little to the past)."""
    with run.open_datasets(*decision.DATASETS) as data:
        features, attention = FeatureEvidence(data), AttentionEvidence(data)
        first, second = decision.decide_repeated(features), decision.decide_little(attention)
        return [steps.put_in_words(first, features), frames.put_in_words(second, attention)]
