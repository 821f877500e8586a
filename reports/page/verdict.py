"""The top of a run's page: the verdict and its reason, five small figures, the split, the tests.

plan = read_plan(run)                      # None where the run has no plan.json
parts = verdict_parts(run, plan, small)    # pieces of HTML
"""

import json
from collections.abc import Mapping
from html import escape
from typing import Any

from framelens.analyses.intervals import enough
from framelens.reports.page.small_figures import INTERVENTIONS, Small
from framelens.reports.page.split_section import TERMS, split_parts, sweep_parts, table
from framelens.reports.plots.controls import failed_controls
from framelens.reports.runs import Run

FILE = "plan.json"
OUTCOMES = {True: "passed", False: "failed", None: "open"}
UNDECIDED = "Not decided"
BANNER = "Controls failed: the numbers below do not count."


def read_plan(run: Run) -> dict[str, Any] | None:
    """The plan in a run's folder; None where there is none, ValueError where it is damaged."""
    path = run.folder / FILE
    if not path.exists():
        return None
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not valid JSON ({error}); make the plan again") from error
    if plan.get("kind") != "plan" or "verdict" not in plan:
        raise ValueError(
            f"{path} is not a plan: it has no verdict; make it again with python -m framelens.probes plan"
        )
    return plan


def banner(run: Run, plan: Mapping[str, Any] | None) -> list[str]:
    """The red warning of a run whose controls failed; empty otherwise."""
    controls = next((test for test in (plan or {}).get("tests", []) if test["name"] == "controls"), None)
    names = failed_controls(run)
    if not names and (controls is None or controls["passed"] is not False):
        return []
    text = controls["measured"] if controls else f"Failed: {', '.join(names).replace('_', ' ')}."
    return [f'<p class="banner" role="alert"><strong>{BANNER}</strong> {escape(text)}</p>']


def verdict_parts(run: Run, plan: Mapping[str, Any] | None, small: list[Small]) -> list[str]:
    """Everything above the findings; without a plan, one line with the command to run."""
    parts = [_without(run)] if plan is None else _answer(plan)
    if plan is not None or any(not run.missing((name,)) for name in INTERVENTIONS):
        parts += five(small, _clips(run))
    if plan is not None:
        parts += split_parts(plan) + _tests(plan) + _remarks(plan) + sweep_parts(plan)
    return parts


def _without(run: Run) -> str:
    if run.missing(("cut",)):
        why = "it has observations only, and only interventions decide. To measure both and make a plan"
        command = f"python -m framelens.probes --model {run.model}"
    else:
        why = "it has no plan. To make one and write this page again"
        command = (
            f"python -m framelens.probes plan --model {run.model} --run {run.folder} --steps 50 --history 16"
        )
        command += f" && python -m framelens.reports --run {run.folder}"
    return f'<p class="nothing">This run has no verdict: {why}, run <code>{escape(command)}</code></p>'


def _answer(plan: Mapping[str, Any]) -> list[str]:
    """The verdict in large letters and the reason under it."""
    answer = str(plan["verdict"])
    text = UNDECIDED if answer == "open" else answer.capitalize()
    reason = str(plan["reason"]).removeprefix(f"{UNDECIDED}: ")
    return [
        f'<section class="answer {escape(answer.replace(" ", "-"))}" id="verdict">',
        '<p class="quiet">Can this model be separated into a causal encoder and a per-frame decoder?</p>',
        f'<p class="large">{escape(text)}</p>',
        f'<p class="reason">{escape(reason[:1].upper() + reason[1:])}</p>',
        *([f"<p>{escape(plan['would_decide'])}</p>"] if plan.get("would_decide") else []),
        "</section>",
    ]


def five(small: list[Small], clips: int) -> list[str]:
    """The five figures side by side, and the meaning of their lines and bands."""
    bands = (
        f"Bands: 95 % intervals over {clips} clips."
        if enough(clips)
        else f"{clips} clip{'s' * (clips != 1)}: too few for an interval."
    )
    has_split = any(figure.chart is not None and figure.chart.split is not None for figure in small)
    edge = "Vertical: where the encoder of the split would end. " * has_split
    return [
        '<h2 id="evidence">The evidence in five figures</h2>',
        f'<p class="quiet">{TERMS}</p>',
        '<p class="quiet">The first two observe, the other three intervene and decide. Dotted: the '
        f"threshold. {edge}{bands}</p>",
        '<p class="quiet with-script" hidden>Point at a figure to read its values (keyboard: the arrow keys '
        "on a figure); a click, or Enter, shows all measurements at that layer further down.</p>",
        '<div class="five">',
        *(_small(figure) for figure in small),
        "</div>",
    ]


def _small(figure: Small) -> str:
    head = f'<h3>{escape(figure.title)}</h3><p class="quiet">{escape(figure.question)}</p>'
    if figure.chart is None:
        return f'<figure class="small">{head}<p class="absent">{escape(figure.takeaway)}</p></figure>'
    label = f"{figure.title}: {figure.unit} by layer. {figure.takeaway}"
    keys = "".join(
        f'<span class="key {curve.role}"><i></i>{escape(curve.label)}</span>' for curve in figure.chart.curves
    )
    return "\n".join(
        [
            f'<figure class="small" data-figure="{figure.name}">{head}',
            f'<p class="unit">{escape(figure.unit)}</p>',
            figure.chart.svg(label),
            f'<p class="keys">{keys}</p>',
            f"<figcaption>{escape(figure.takeaway)}</figcaption>",
            '<p class="readout" aria-live="polite"></p></figure>',
        ]
    )


def _tests(plan: Mapping[str, Any]) -> list[str]:
    """Each test with its question, measurement, threshold and outcome; conditions first."""
    tests = plan.get("tests") or []
    if not tests:
        return []
    rows = []
    for test in tests:
        outcome = OUTCOMES[test["passed"]]
        side = f"{test['asked']}: " if test.get("asked") else ""
        asked = f"{escape(side)}<span class='quiet'>{escape(test['because'])}</span>"
        measured = f"{escape(test['measured'])} <span class='quiet'>{escape(test.get('beside', ''))}</span>"
        verdict = f'<span class="outcome {outcome}">{outcome}</span>'
        rows.append([escape(test["question"]), measured, asked, verdict])
    conditions = sum(test["kind"] == "condition" for test in tests)
    return [
        '<h2 id="tests">The tests of the verdict</h2>',
        f'<p class="quiet">{escape(str(plan.get("decision", "")))} The first {conditions} are conditions: '
        "without them the other tests show nothing.</p>",
        table(["question", "measured", "threshold", "outcome"], rows, "tests"),
    ]


def _remarks(plan: Mapping[str, Any]) -> list[str]:
    remarks = plan.get("remarks") or []
    items = (f"<li>{escape(str(remark))}</li>" for remark in remarks)
    return ["<h3>Remarks</h3>", "<ul>", *items, "</ul>"] if remarks else []


def _clips(run: Run) -> int:
    return int(run.manifest["settings"]["clips"])
