"""The conditions of a split: the controls pass, the model predicts, and it uses its own past."""

import numpy as np

from framelens.analyses.decision.engine import Decided, Measured, NotMeasured, Question
from framelens.analyses.decision.evidence import SplitEvidence
from framelens.analyses.decision.kept import BENEFIT, MEASURES, Value, error, summary
from framelens.analyses.decision.outcomes import control_outcomes, ignores_past
from framelens.analyses.decision.words import percent, spell_share

PREDICTS, OTHER = 0.5, 0.5
MEASURE_NAMES = {"velocity": "velocity", "frame": "generated frame"}
NO_BENEFIT = "Not asked: the benefit of the past is too small to compute a kept share."


def controls_hold(evidence: SplitEvidence) -> Decided:
    """The share of the applicable controls that passed; the test passes only if all of them do."""
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
    if ignores_past(controls):
        text += " Controls that remove the past do not apply: after another clip's frames, nothing changes."
    return Decided(Value(share, share, share), text, passed=not failed if applying else None)


def error_over_random(evidence: SplitEvidence) -> Measured:
    """The velocity error divided by that of the same network with random weights."""
    context, cut = evidence.context_for("cut"), evidence.data["cut"]
    if "random" not in cut.get("network", []):
        raise NotMeasured("This run did not measure a network with random weights.")
    random = context.rows(error(cut, "velocity", prefix="plain_", network="random"))
    value = summary(context.plain["velocity"] / random)
    return Measured(value, f"Its velocity error is {spell_share(value)} of that with random weights.")


def benefit_of_the_past(evidence: SplitEvidence) -> Measured:
    """The share of the own-frame-only error that the past removes, the smaller of the two measures."""
    context = evidence.context_for("cut")
    rows = {measure: context.benefit(measure) for measure in MEASURES}
    value = summary(np.minimum(*rows.values()))
    text = f"Seeing the past removes {spell_share(value)} of the error that remains when each frame sees "
    return Measured(value, f"{text}only itself.", f"{spell_measures(rows)}; the smaller counts.")


def kept_by_another_clip(evidence: SplitEvidence) -> Measured:
    """The share of the benefit that another clip's past gives, the larger of the two measures.

    Measured with that past at every step. In older runs it was fetched once, at the first step.
    """
    name = "other_past" if "other_past" in evidence.data else "reuse_controls"
    context, place = evidence.context_for(name), {}
    if name == "reuse_controls":
        last = evidence.layers - 1
        if last not in evidence.data[name].layer:
            raise NotMeasured(f"Reuse in all layers was not measured: layer {last} is missing.")
        place = {"source": "other_clip", "kind": "cross", "layer": last}
    stored = evidence.data[name]
    rows = {measure: context.kept_share(measure, stored, **place) for measure in MEASURES}
    value = summary(np.maximum(*rows.values()))
    beside = f"{spell_measures(rows)}; the larger counts. Below 0: worse than no past."
    return Measured(value, f"Another clip's past gives {spell_share(value)} of the benefit.", beside)


def without_benefit(evidence: SplitEvidence) -> str:
    """Why kept shares are not computed; empty where there is a benefit, or none was measured."""
    return NO_BENEFIT if evidence.has_no_benefit else ""


def spell_measures(rows: dict[str, np.ndarray]) -> str:
    """The value of each measure."""
    text = ", ".join(
        f"{MEASURE_NAMES[measure]} {spell_share(summary(each))}" for measure, each in rows.items()
    )
    return text[:1].upper() + text[1:]


CONDITIONS = (
    Question(
        "controls",
        "Do the instruments work: does an edit that restores the original values change nothing, and does an "
        "edit that removes or replaces the past change the frame?",
        measure=controls_hold,
        threshold=1.0,
        side="above",
        kind="condition",
        because="every control must pass",
        failing="a control failed, so no other result of this run can be used",
    ),
    Question(
        "predicts",
        f"Does it predict: is its error below {percent(PREDICTS)} of that with random weights?",
        measure=error_over_random,
        threshold=PREDICTS,
        side="below",
        kind="condition",
        asked=f"less than {percent(PREDICTS)}",
        because="training should at least halve the error of the random weights",
        failing="it does not predict clearly better than with random weights",
    ),
    Question(
        "uses_past",
        f"Does it use its past: does seeing earlier frames remove more than {percent(BENEFIT)} of the error? "
        "The removed part is called the benefit of the past.",
        measure=benefit_of_the_past,
        threshold=BENEFIT,
        side="above",
        kind="condition",
        asked=f"more than {percent(BENEFIT)}",
        because="shares of a smaller benefit cannot be distinguished",
        failing="it does not use its past",
    ),
    Question(
        "own_past",
        "Is it the past of this clip: does another clip's past give less than "
        f"{percent(OTHER)} of the benefit?",
        measure=kept_by_another_clip,
        threshold=OTHER,
        side="below",
        kind="condition",
        asked=f"less than {percent(OTHER)}",
        because="a benefit that any clip's past gives does not come from this clip",
        failing="another clip's past gives the same benefit",
        not_asked=without_benefit,
    ),
)
"""If one of these fails, the other tests show nothing."""
