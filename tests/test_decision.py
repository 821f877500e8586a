"""One engine decides: its answers for invented runs are recorded, and it obeys laws."""

import json
from pathlib import Path

import fake_evidence
import fake_run
import numpy as np
import pytest
import xarray as xr

from framelens.analyses.decision.engine import Decided, Evidence, Measured, NotMeasured, Question, answers
from framelens.analyses.decision.findings import DATASETS, findings
from framelens.analyses.decision.kept import Value
from framelens.analyses.decision.outcomes import control_outcomes
from framelens.analyses.decision.split import split

LAYERS = 8
GOLDEN = json.loads((Path(__file__).parent / "runs" / "decided.json").read_text())
"""Verdicts and answers of invented runs, [passed, value, low, high] by question."""


def plain(tests):
    return {test.name: [test.passed, test.value, test.low, test.high] for test in tests}


def agree(tests, expected):
    found = plain(tests)
    assert found.keys() == expected.keys()
    for name, (passed, *numbers) in expected.items():
        assert found[name][0] is passed, name
        expected_numbers = [np.nan if number is None else number for number in numbers]
        np.testing.assert_allclose(found[name][1:], expected_numbers, rtol=1e-6, atol=1e-9, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("case", GOLDEN["splits"], ids=lambda case: str(case["chosen"] or case["without"]))
def test_the_planners_answers_are_those_on_record(case):
    by_layer = {int(layer): share for layer, share in case["chosen"].get("own_work", {}).items()}
    data = fake_evidence.datasets(layers=LAYERS, **case["chosen"] | {"own_work": by_layer or None})
    found = split({name: data[name] for name in data if name != case["without"]}, LAYERS)
    assert found.verdict == case["verdict"]
    agree(found.tests, case["tests"])


@pytest.mark.slow
@pytest.mark.parametrize("case", GOLDEN["findings"], ids=lambda case: str(case["chosen"] or "default"))
def test_the_findings_are_those_on_record_and_need_datasets_only(case, tmp_path):
    options = {name: tuple(v) if isinstance(v, list) else v for name, v in case["chosen"].items()}
    folder = fake_run.write(tmp_path / "run", **options)
    data = {name: xr.load_dataset(folder / f"{name}.nc", engine="netcdf4") for name in DATASETS}
    found = findings(data)
    assert [finding.verdict for finding in found] == [each["verdict"] for each in case["found"]]
    for finding, each in zip(found, case["found"], strict=True):
        agree(finding.tests, each["tests"])


@pytest.mark.slow
@pytest.mark.parametrize("name", DATASETS)
def test_a_missing_dataset_leaves_its_questions_open(name, tmp_path):
    folder = fake_run.write(tmp_path / "run")
    others = [other for other in DATASETS if other != name]
    found = findings({other: xr.load_dataset(folder / f"{other}.nc", engine="netcdf4") for other in others})
    still_open = {test.name for finding in found for test in finding.tests if test.passed is None}
    assert (
        still_open
        == {
            "step_similarity": {"repeated", "learned"},
            "noise_invariance": {"from_context"},
            "frame_attention": {"little", "less", "learned"},
        }[name]
    )


# Laws of the engine


def asked(measure, **changes):
    options = {"threshold": 0.5, "side": "above", "kind": "core", "asked": "more than {}"} | changes
    (answer,) = answers([Question("a", "?", measure=measure, **options)], Evidence({}))
    return answer


def measured(low, mean, high, text="It is so."):
    return lambda evidence: Measured(Value(mean, low, high), text)


@pytest.mark.parametrize("between", [None, False])
@pytest.mark.parametrize(
    ("low", "high", "above", "below"),
    [(0.6, 0.7, True, False), (0.3, 0.4, False, True), (0.5, 0.6, "between", False)],
)
def test_an_answer_needs_the_whole_interval_strictly_on_its_side(low, high, above, below, between):
    for side, outcome in (("above", above), ("below", below)):
        found = asked(measured(low, (low + high) / 2, high), side=side, between=between)
        assert found.passed is (between if outcome == "between" else outcome)


def test_the_threshold_may_follow_from_the_evidence():
    found = asked(measured(0.6, 0.65, 0.7), threshold=lambda evidence: 2 + evidence.sample.clips)
    assert found.threshold == 2 and found.asked == "more than 2" and found.passed is False


def test_what_cannot_be_measured_is_open_and_keeps_its_value():
    def fails(evidence):
        raise NotMeasured("Too few.", 3.0)

    found = asked(fails)
    assert (found.passed, found.value, found.measured) == (None, 3.0, "Too few.")
    assert not asked(lambda evidence: evidence.require("cut")).is_measured
    assert asked(measured(np.nan, np.nan, np.nan)).passed is None


def test_what_is_not_asked_is_not_measured():
    found = asked(lambda evidence: pytest.fail("was measured"), not_asked=lambda evidence: "No benefit.")
    assert found.passed is None and found.measured == "No benefit."


def test_an_outcome_may_be_decided_beside_the_interval():
    found = asked(lambda evidence: Decided(Value(0.1, 0.1, 0.1), "All hold.", passed=True))
    assert found.passed is True and found.measured == "All hold."


def test_controls_without_a_threshold_are_refused_with_what_is_known():
    controls = fake_evidence.datasets()["controls"]
    assert control_outcomes(controls)["own_frame_only"] is True
    with pytest.raises(ValueError, match="no attribute 'threshold'.*there are: treshold"):
        control_outcomes(controls.drop_attrs().assign_attrs(treshold=0.01))
