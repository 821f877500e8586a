"""The conditions of any verdict but no: the controls hold, the model predicts, and it uses its own past."""

import numpy as np

from framelens.analyses.decision.engine import Decided, Measured, NotMeasured, Question
from framelens.analyses.decision.evidence import SplitEvidence
from framelens.analyses.decision.kept import BENEFIT, MEASURES, Value, error, summary
from framelens.analyses.decision.outcomes import control_outcomes
from framelens.analyses.decision.words import percent, shared

PREDICTS, OTHER = 0.5, 0.5
SPELLED = {"velocity": "velocity", "frame": "drawn frame"}
NO_BENEFIT = "Not asked: the past brings no clear benefit of which a share could be kept."


def controls_hold(evidence: SplitEvidence) -> Decided:
    """The share of the controls that passed, of those that apply; passed only where all did."""
    evidence.require("controls")
    controls = evidence.data["controls"]
    outcomes = control_outcomes(controls)
    applying = sum(passed is not None for passed in outcomes.values())
    failed = [
        f"{name} (effect {float(controls.effect.sel(control=name).mean()):.2g})"
        for name, passed in outcomes.items()
        if passed is False
    ]
    share = 1 - len(failed) / max(1, applying)
    text = f"Failed: {', '.join(failed)}." if failed else f"All {applying} controls passed."
    return Decided(Value(share, share, share), text, passed=not failed if applying else None)


def error_over_random(evidence: SplitEvidence) -> Measured:
    """The velocity error over that of the same network with its weights in random order."""
    context, cut = evidence.context_for("cut"), evidence.data["cut"]
    if "random" not in cut.get("network", []):
        raise NotMeasured("This run did not measure a network with random weights.")
    random = context.rows(error(cut, "velocity", prefix="plain_", network="random"))
    value = summary(context.plain["velocity"] / random)
    return Measured(value, f"Its velocity error is {shared(value)} of that with its weights in random order.")


def benefit_of_the_past(evidence: SplitEvidence) -> Measured:
    """The share of the own-frame-only error that the past removes, the smaller of the two measures."""
    context = evidence.context_for("cut")
    rows = {measure: context.benefit(measure) for measure in MEASURES}
    value = summary(np.minimum(*rows.values()))
    text = f"Seeing the past removes {shared(value)} of the error that remains when each frame sees only "
    return Measured(value, f"{text}itself.", f"{each_measure(rows)}; the smaller counts.")


def kept_by_another_clip(evidence: SplitEvidence) -> Measured:
    """The share of the benefit that another clip's past gives, the larger of the two measures."""
    context, last = evidence.context_for("reuse_controls"), evidence.layers - 1
    controls = evidence.data["reuse_controls"]
    if last not in controls.layer:
        raise NotMeasured(f"Reuse in all layers was not measured: layer {last} is missing.")
    place = {"source": "other_clip", "kind": "cross", "layer": last}
    rows = {measure: context.kept(measure, controls, **place) for measure in MEASURES}
    value = summary(np.maximum(*rows.values()))
    beside = f"{each_measure(rows)}; the larger counts. Below 0: worse than no past."
    return Measured(value, f"Another clip's past gives {shared(value)} of the benefit.", beside)


def without_benefit(evidence: SplitEvidence) -> str:
    """Why shares of the benefit are not asked for; empty where there is a benefit, or none was measured."""
    return NO_BENEFIT if evidence.has_no_benefit else ""


def each_measure(rows: dict[str, np.ndarray]) -> str:
    """The value of each measure."""
    text = ", ".join(f"{SPELLED[measure]} {shared(summary(each))}" for measure, each in rows.items())
    return text[:1].upper() + text[1:]


CONDITIONS = (
    Question(
        "controls",
        "Do the instruments work: does an edit that puts back what was there change nothing, and one that "
        "takes away or swaps the past change the frame?",
        measure=controls_hold,
        threshold=1.0,
        side="above",
        kind="condition",
        because="all of them have to",
        failing="a control failed and nothing else in this run can be read",
    ),
    Question(
        "predicts",
        f"Does it predict: is its error below {percent(PREDICTS)} of that with its weights in random order?",
        measure=error_over_random,
        threshold=PREDICTS,
        side="below",
        kind="condition",
        asked=f"less than {percent(PREDICTS)}",
        because="whatever was learned should halve the error of what nothing was learned in",
        failing="it predicts no better than weights in random order",
    ),
    Question(
        "uses_past",
        f"Does it use its past: does seeing earlier frames remove more than {percent(BENEFIT)} of the error? "
        "What is removed is called the benefit of the past.",
        measure=benefit_of_the_past,
        threshold=BENEFIT,
        side="above",
        kind="condition",
        asked=f"more than {percent(BENEFIT)}",
        because="parts of a smaller benefit could not be told apart",
        failing="it does next to nothing with its past",
    ),
    Question(
        "own_past",
        f"Is it this clip's past: does another clip's give less than {percent(OTHER)} of the benefit?",
        measure=kept_by_another_clip,
        threshold=OTHER,
        side="below",
        kind="condition",
        asked=f"less than {percent(OTHER)}",
        because="what any clip's past gives is no reasoning about this one",
        failing="another clip's past serves it as well",
        not_asked=without_benefit,
    ),
)
"""Without these the rest says nothing."""
