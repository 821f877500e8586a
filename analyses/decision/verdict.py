"""The verdict on a model that follows from the answers to QUESTIONS.

verdict(answers(QUESTIONS, SplitEvidence(datasets, layers=12)))     # "separable", ..., "open"
"""

from collections.abc import Sequence
from itertools import product

from framelens.analyses.decision.conditions import CONDITIONS
from framelens.analyses.decision.core import CORE
from framelens.analyses.decision.engine import Answer

QUESTIONS = (*CONDITIONS, *CORE)
"""The questions that a separable model has to pass."""
DECISION = (
    "A test passes, or fails, only if its whole 95 % interval over clips does; otherwise it is open. A model "
    "that does not predict, that does not use its past, or that gets the same benefit from another clip's "
    "past, is not separable. "
    "Separable: all tests passed. Partly separable: the past can be fetched once, or is not needed to the "
    "last layer, but not all tests passed. Not separable: neither. Open: a control failed, or open tests "
    "could change the verdict."
)


def verdict(tests: Sequence[Answer]) -> str:
    """The verdict by DECISION: the one that every outcome of the open tests gives, otherwise open."""
    outcomes = product(*([test.passed] if test.passed is not None else [True, False] for test in tests))
    names = [test.name for test in tests]
    found = {_decide(dict(zip(names, outcome, strict=True))) for outcome in outcomes}
    return found.pop() if len(found) == 1 else "open"


def _decide(passed: dict[str, bool]) -> str:
    if not passed["predicts"]:
        return "not separable"  # needs no intervention, so no control matters
    if not passed["controls"]:
        return "open"
    if not (passed["uses_past"] and passed["own_past"]):
        return "not separable"
    if all(passed[question.name] for question in CORE):
        return "separable"
    return "partly separable" if passed["once"] or passed["depth"] else "not separable"
