"""Finding 2 in words: do deep layers attend little to earlier frames?"""

from dataclasses import replace

import numpy as np

from framelens.analyses.averages import summary
from framelens.analyses.decision.engine import Answer
from framelens.analyses.decision.findings import Finding
from framelens.analyses.decision.little_attention import DEEP, SHALLOW, AttentionEvidence
from framelens.analyses.decision.words import spell
from framelens.analyses.scales import scale_of
from framelens.reports.drawing import tables


def put_in_words(finding: Finding, evidence: AttentionEvidence) -> Finding:
    """The finding with a sentence for each measured answer, and a remark."""
    tests = [replace(test, measured=test.measured or _describe(test)) for test in finding.tests]
    return replace(finding, tests=tests, remarks=[_peak(evidence)] if evidence.is_measured else [])


def _describe(test: Answer) -> str:
    value = spell(test.interval)
    if test.name == "little":
        deep, uniform = test.numbers["deep"], test.numbers["uniform"]
        return (
            f"The last {DEEP:.0%} of the blocks put {spell(deep)} of their attention on earlier frames, "
            f"uniform attention {uniform:.2f}. Ratio: {value}."
        )
    if test.name == "less":
        return f"Last {DEEP:.0%} minus first {SHALLOW:.0%} of the blocks: {value}."
    return f"Trained minus random weights, last {DEEP:.0%} of the blocks: {value}."


def _peak(evidence: AttentionEvidence) -> str:
    """Where most attention goes to the past, and where it is sharpest on one earlier frame."""
    depth, value, sharpest = (
        evidence.depth,
        summary(evidence.mass["trained"], scale_of("cross_mass")),
        evidence.sharpest,
    )
    most, back = int(np.argmax(value["mean"].values)), sharpest.lag
    return (
        f"Most attention to earlier frames: {depth.name(most)}, {tables.spell(value.isel(layer=most))}. "
        f"Retrieval is sharpest at {depth.name(sharpest.position)}, {back} frame{'s' * (back != 1)} back: "
        f"{sharpest.times:.1f} times that frame's share of the keys. Attention mass does not show use."
    )
