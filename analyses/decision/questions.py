"""What is asked of a run before its model is called separable, why, and the verdict that follows.

verdict(tests)           # of a Check for each of ASKED
"""

from dataclasses import dataclass
from itertools import product

from framelens.analyses.decision.kept import BENEFIT

THRESHOLD = 0.9
"""The kept share of the past's benefit that is enough."""
PREDICTS, OTHER, MARGIN, SHARP = 0.5, 0.5, 0.1, 0.9


def percent(share: float) -> str:
    """`90 %`."""
    return f"{100 * share:.0f} %"


ASKED = {
    "controls": (
        "Do the instruments work: does an edit that puts back what was there change nothing, and one that "
        "takes away or swaps the past change the frame?",
        1.0, "above", "", "all of them have to", "a control failed and nothing else in this run can be read",
    ),
    "predicts": (
        f"Does it predict: is its error below {percent(PREDICTS)} of that with its weights in random order?",
        PREDICTS, "below", f"less than {percent(PREDICTS)}",
        "whatever was learned should halve the error of what nothing was learned in",
        "it predicts no better than weights in random order",
    ),
    "uses_past": (
        f"Does it use its past: does seeing earlier frames remove more than {percent(BENEFIT)} of the error? "
        "What is removed is called the benefit of the past.",
        BENEFIT, "above", f"more than {percent(BENEFIT)}",
        "parts of a smaller benefit could not be told apart",
        "it does next to nothing with its past",
    ),
    "own_past": (
        f"Is it this clip's past: does another clip's give less than {percent(OTHER)} of the benefit?",
        OTHER, "below", f"less than {percent(OTHER)}",
        "what any clip's past gives is no reasoning about this one",
        "another clip's past serves it as well",
    ),
    "once": (
        f"Can the past be fetched once: is {percent(THRESHOLD)} of the benefit kept when what attention "
        "brings from earlier frames is computed at the first step, from pure noise, and then reused?",
        THRESHOLD, "above", f"more than {percent(THRESHOLD)}",
        "what a fine-tune has to win back is then at most a tenth",
        "what it fetches from its past at the first step does not serve the later ones",
    ),
    "depth": (
        f"Is the past not needed to the last layer: is {percent(THRESHOLD)} of the benefit kept when only "
        "the first layers see it?",
        0.0, "below", "fewer than {layers} layers", "a decoder has to have a layer of its own",
        "it needs its past up to the last layer",
    ),
    "decoder": (
        "Can layers be left to the encoder: do fewer than all have to run at every step?",
        0.0, "below", "fewer than {layers} layers", "else nothing is saved",
        "every layer has to run at every step",
    ),
    "invariant": (
        "Is it the same for any noise: behind the encoder's last layer, are features of two noise draws more "
        f"alike, by {MARGIN}, than where one of them sees another clip's past?",
        MARGIN, "above", f"more than {MARGIN}", "unrelated features scatter by a few hundredths around 0",
        "what the encoder's layers compute depends on the noise",
    ),
    "sharp": (
        f"Is the frame as sharp: has it {percent(SHARP)} of its gradient energy when the past is fetched "
        "once and by the encoder's layers only?",
        SHARP, "above", f"more than {percent(SHARP)}", "squared error alone rewards a blurred frame",
        "its frames become blurred",
    ),
}  # fmt: skip
"""Question, threshold (0 for the number of layers), side of it, the same in words, why, and failing."""

CONDITIONS = ("controls", "predicts", "uses_past", "own_past")
"""Without these the rest says nothing."""
CORE = tuple(name for name in ASKED if name not in CONDITIONS)
DECISION = (
    "A test is passed, or failed, only if its whole 95 % interval over clips is; else it is open. A model "
    "that does not predict, does not use its past, or is served as well by another clip's, is not separable. "
    "Separable: all tests passed. Partly separable: the past can be fetched once, or is not needed to the "
    "last layer, but not all tests are passed. Not separable: neither. Open: a control failed, or open tests "
    "could change the verdict."
)


@dataclass(frozen=True)
class Check:
    """One question put to a run; `passed` is None where it cannot be answered."""

    name: str
    question: str
    measured: str
    """The answer in one sentence, with its interval."""
    beside: str
    """What it was made from; empty where it says all."""
    value: float
    low: float
    high: float
    threshold: float
    side: str
    """Whether to pass is to lie "above" or "below" the threshold."""
    asked: str
    """Side and threshold in words; empty where there is nothing to say."""
    because: str
    """Why this threshold."""
    failing: str
    """What it means that the test is failed, to go on from "since"."""
    passed: bool | None

    @property
    def kind(self) -> str:
        """Whether this is a "condition" of any verdict but no, or the "core" of the question."""
        return "condition" if self.name in CONDITIONS else "core"

    @property
    def is_measured(self) -> bool:
        """Whether there is a value, with an interval or without."""
        return self.value == self.value  # not NaN


def verdict(tests: list[Check]) -> str:
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
    if all(passed[name] for name in CORE):
        return "separable"
    return "partly separable" if passed["once"] or passed["depth"] else "not separable"
