"""The answer to each question from a run's evidence: a measured value compared with a threshold.

sharp = Question("sharp", "Is the frame as sharp?", measure=sharpness, threshold=0.9, side="above")
(answer,) = answers([sharp], Evidence(datasets))
answer.passed                             # True, False, or None where the run cannot answer
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Literal, TypeVar

import numpy as np
import xarray as xr

from framelens.analyses.averages import of_network
from framelens.analyses.decision.kept import Value
from framelens.analyses.sample import Sample, sample_of


class NotMeasured(Exception):
    """Raised by a `measure` where the run cannot answer; the message is a sentence with the reason."""

    def __init__(self, why: str, value: float = np.nan):
        super().__init__(why)
        self.value = value


@dataclass(frozen=True)
class Evidence:
    """A run's datasets by name, as questions read them."""

    data: Mapping[str, xr.Dataset]

    @property
    def sample(self) -> Sample:
        """The clips that were measured, and their films; none where nothing was."""
        return next((sample_of(stored) for stored in self.data.values()), Sample(0))

    def require(self, *names: str) -> None:
        """Raises NotMeasured with those of the named datasets that the run does not have."""
        missing = [name for name in names if name not in self.data]
        if missing:
            raise NotMeasured(f"This run did not measure {' and '.join(missing)}.")

    def networks(self, name: str) -> list[str]:
        """The networks in a dataset, the trained one first."""
        found = map(str, self.data[name]["network"].values)
        return sorted(found, key=lambda network: (network != "trained", network))

    def of(self, name: str, network: str = "trained") -> xr.Dataset:
        """One network's part of a dataset, in the mode that decides (teacher forced where it was run)."""
        return of_network(self.data[name], network)


E = TypeVar("E", bound=Evidence)


@dataclass(frozen=True)
class Measured:
    """What a question's `measure` gives: the value that the threshold is compared with."""

    value: Value
    text: str = ""
    """The value in one sentence; empty where the reports write it."""
    beside: str = ""
    """What the value was computed from, in words."""
    numbers: Mapping[str, Any] = field(default_factory=dict, kw_only=True)
    """Other numbers of the sentence, by name."""


@dataclass(frozen=True)
class Decided(Measured):
    """A measured value whose outcome does not follow from its interval alone."""

    passed: bool | None = field(kw_only=True)


@dataclass(frozen=True)
class Question(Generic[E]):
    """A question, the function that measures its value, and the value that it requires."""

    name: str
    ask: str
    """The question as a sentence."""
    measure: Callable[[E], Measured]
    """Gives the value, or raises NotMeasured."""
    threshold: float | Callable[[E], float]
    side: Literal["above", "below"]
    """On which side of the threshold the value must be."""
    kind: Literal["condition", "core", "claim"]
    """A condition of a split, the core of the question, or one test of a claim."""
    asked: str = ""
    """Side and threshold in words, {} for the threshold; may be empty."""
    because: str = ""
    """Why this threshold."""
    failing: str = ""
    """What a negative answer means, as the continuation of "since"."""
    between: bool | None = None
    """The outcome where the interval includes the threshold; None leaves the answer open."""
    not_asked: Callable[[E], str] = lambda evidence: ""
    """Why this run cannot be asked, as a sentence; empty where it can."""

    def outcome(self, value: Value, threshold: float) -> bool | None:
        """Whether the whole interval is on the required side; None without an interval."""
        if np.isnan(value.low):
            return None
        sign = 1 if self.side == "above" else -1
        worst, best = sorted((sign * value.low, sign * value.high))
        if worst > sign * threshold:
            return True
        return False if best <= sign * threshold else self.between


@dataclass(frozen=True)
class Answer:
    """The answer of a run to one question."""

    question: Question[Any]
    threshold: float
    value: float
    low: float
    high: float
    passed: bool | None
    """None where the run cannot answer."""
    measured: str
    """The answer as a sentence with its interval, or why there is none; empty where the reports write it."""
    beside: str = ""
    """What the value was computed from; empty where the sentence is complete."""
    numbers: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The question's name."""
        return self.question.name

    @property
    def asked(self) -> str:
        """Side and threshold in words."""
        return self.question.asked.format(f"{self.threshold:g}")

    @property
    def interval(self) -> Value:
        """The value with the ends of its interval."""
        return Value(self.value, self.low, self.high)

    @property
    def is_measured(self) -> bool:
        """Whether there is a value, with an interval or without."""
        return not np.isnan(self.value)


def answers(questions: Iterable[Question[E]], evidence: E) -> list[Answer]:
    """The answer to each question, in their order."""
    return [_answer(question, evidence) for question in questions]


def _answer(question: Question[E], evidence: E) -> Answer:
    asked = question.threshold
    threshold = float(asked(evidence) if callable(asked) else asked)
    try:
        if why := question.not_asked(evidence):
            raise NotMeasured(why)
        found = question.measure(evidence)
    except NotMeasured as reason:
        return Answer(question, threshold, reason.value, np.nan, np.nan, None, str(reason))
    value = Value(*map(float, found.value))
    if np.isnan(value.mean):
        why = "It does not apply here: what was measured is not a number."
        return Answer(question, threshold, *value, passed=None, measured=why)
    passed = found.passed if isinstance(found, Decided) else question.outcome(value, threshold)
    answer = Answer(question, threshold, *value, passed, found.text, found.beside, found.numbers)
    if isinstance(found, Decided) or not found.text or passed is not None:
        return answer
    return _open(answer, evidence.sample)


def _open(answer: Answer, sample: Sample) -> Answer:
    """The same with the reason why its value does not decide."""
    why = f"The threshold is: {answer.asked}; the interval includes it, so this test is open."
    if np.isnan(answer.low):
        why = f"{sample.units} are too few for an interval: probe at least 5."
    return replace(answer, measured=f"{answer.measured} {why}")
