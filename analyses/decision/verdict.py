"""The verdict on a model that follows from the answers to QUESTIONS.

verdict(answers(QUESTIONS, SplitEvidence(datasets, layers=12)))     # "separable", ..., "open"
"""

from collections.abc import Sequence
from itertools import product

from framelens.analyses.decision.conditions import CONDITIONS
from framelens.analyses.decision.core import CORE
from framelens.analyses.decision.engine import Answer

QUESTIONS = (*CONDITIONS, *CORE)
"""What is asked of a run before its model is called separable."""
DECISION = (
    "A test is passed, or failed, only if its whole 95 % interval over clips is; else it is open. A model "
    "that does not predict, does not use its past, or is served as well by another clip's, is not separable. "
    "Separable: all tests passed. Partly separable: the past can be fetched once, or is not needed to the "
    "last layer, but not all tests are passed. Not separable: neither. Open: a control failed, or open tests "
    "could change the verdict."
)


def verdict(tests: Sequence[Answer]) -> str:
    """The verdict by DECISION: what every outcome of the open tests would give, else open."""
    outcomes = product(*([test.passed] if test.passed is not None else [True, False] for test in tests))
    names = [test.name for test in tests]
    found = {_decided(dict(zip(names, outcome, strict=True))) for outcome in outcomes}
    return found.pop() if len(found) == 1 else "open"


def _decided(passed: dict[str, bool]) -> str:
    if not passed["predicts"]:
        return "not separable"  # needs no intervention, so that no control matters
    if not passed["controls"]:
        return "open"
    if not (passed["uses_past"] and passed["own_past"]):
        return "not separable"
    if all(passed[question.name] for question in CORE):
        return "separable"
    return "partly separable" if passed["once"] or passed["depth"] else "not separable"
