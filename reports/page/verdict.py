"""The top of a run's page: the verdict and its reason, five small figures, the split, the tests.

parts = verdict_parts(run, run.plan, small, findings(run))    # pieces of HTML
"""

from framelens.analyses.decision.findings import Finding
from framelens.analyses.intervals import describe_intervals
from framelens.analyses.sample import Sample
from framelens.records.plan import Plan
from framelens.reports.page.markup import Html, fill, join, table
from framelens.reports.page.player import player
from framelens.reports.page.small_figures import INTERVENTIONS, Small
from framelens.reports.page.split_section import TERMS, split_parts, sweep_parts
from framelens.reports.plots.controls import failed_controls
from framelens.reports.runs import Run

OUTCOMES = {True: "passed", False: "failed", None: "open"}
UNDECIDED = "Not decided"
BANNER = "Controls failed: the numbers below do not count."


def banner(run: Run, plan: Plan | None) -> list[Html]:
    """The red warning of a run whose controls failed; empty otherwise."""
    tests = () if plan is None else plan.tests
    controls = next((test for test in tests if test.name == "controls"), None)
    names = failed_controls(run)
    if not names and (controls is None or controls.passed is not False):
        return []
    text = controls.measured if controls else f"Failed: {', '.join(names).replace('_', ' ')}."
    return [fill('<p class="banner" role="alert"><strong>{}</strong> {}</p>', BANNER, text)]


def verdict_parts(run: Run, plan: Plan | None, small: list[Small], found: list[Finding]) -> list[Html]:
    """Everything above the findings; without a plan, one line with the command to run."""
    parts = [_without(run)] if plan is None else _answer(plan)
    parts += [relate(plan, found), *player(run)]
    if plan is not None or any(not run.missing((name,)) for name in INTERVENTIONS):
        parts += five(small, run.probed_sample)
    if plan is not None:
        parts += split_parts(plan) + _tests(plan) + _remarks(plan) + sweep_parts(plan)
    return parts


def relate(plan: Plan | None, found: list[Finding]) -> Html:
    """How the verdict relates to the two findings of the paper, in two sentences."""
    first, second = (finding.verdict for finding in found)
    text = (
        f"The paper observed that features repeat over denoising steps (here: {first}) and that deep layers "
        f"attend little to earlier frames (here: {second}). "
    )
    if plan is not None:
        text += (
            "These are observations. The verdict rests on interventions, which show what the output needs, "
            "so a model can be separable where an observation is not confirmed, and the other way round."
        )
    return fill('<p class="relation">{}</p>', text)


def _without(run: Run) -> Html:
    if run.missing(("cut",)):
        why = "it has observations only, and only interventions decide. To measure both and make a plan"
        command = f"framelens probe --model {run.model}"
    else:
        why = "it has no plan. To make one and write this page again"
        command = f"framelens plan --model {run.model} --run {run.folder} --steps 50 --history 16"
        command += f" && framelens figures --run {run.folder}"
    return fill('<p class="nothing">This run has no verdict: {}, run <code>{}</code></p>', why, command)


def _answer(plan: Plan) -> list[Html]:
    """The verdict in large letters and the reason under it."""
    answer = plan.verdict
    text = UNDECIDED if answer == "open" else answer.capitalize()
    reason = plan.reason.removeprefix(f"{UNDECIDED}: ")
    return [
        fill('<section class="answer {}" id="verdict">', answer.replace(" ", "-")),
        fill(
            '<p class="quiet">Can this model be separated into a causal encoder and a per-frame decoder?</p>'
        ),
        fill('<p class="large">{}</p>', text),
        fill('<p class="reason">{}</p>', reason[:1].upper() + reason[1:]),
        *([fill("<p>{}</p>", plan.would_decide)] if plan.would_decide else []),
        fill("</section>"),
    ]


def five(small: list[Small], sample: Sample) -> list[Html]:
    """The five figures side by side, and the meaning of their lines and bands."""
    bands = describe_intervals(sample)
    has_split = any(figure.chart is not None and figure.chart.split is not None for figure in small)
    edge = "Vertical: where the encoder of the split would end. " * has_split
    return [
        fill('<h2 id="evidence">The evidence in five figures</h2>\n<p class="quiet">{}</p>', TERMS),
        fill(
            "<details><summary>lines, bands and intervals</summary><p>The first two observe, the other three "
            "intervene and decide. Dotted: the threshold. {}{}</p></details>",
            edge,
            bands,
        ),
        fill(
            '<p class="quiet with-script" hidden>Point at a figure to read its values (keyboard: the arrow '
            "keys on a figure); a click, or Enter, shows all measurements at that layer further down.</p>"
        ),
        fill('<div class="five">'),
        *(_small(figure) for figure in small),
        fill("</div>"),
    ]


def _small(figure: Small) -> Html:
    head = fill('<h3>{}</h3><p class="quiet">{}</p>', figure.title, figure.question)
    if figure.chart is None:
        absent = '<figure class="small">{}<p class="absent">{}</p></figure>'
        return fill(absent, head, figure.takeaway)
    label = f"{figure.title}: {figure.unit} by layer. {figure.takeaway}"
    keys = join(
        (fill('<span class="key {}"><i></i>{}</span>', c.role, c.label) for c in figure.chart.curves), ""
    )
    return fill(
        '<figure class="small" data-figure="{name}">{head}\n<p class="unit">{unit}</p>\n{svg}\n'
        '<p class="keys">{keys}</p>\n<figcaption>{takeaway}</figcaption>\n'
        '<p class="readout" aria-live="polite"></p></figure>',
        name=figure.name,
        head=head,
        unit=figure.unit,
        svg=figure.chart.svg(label),
        keys=keys,
        takeaway=figure.takeaway,
    )


def _tests(plan: Plan) -> list[Html]:
    """Each test with its question, measurement, threshold and outcome; conditions first."""
    tests = plan.tests
    if not tests:
        return []
    rows, reasons = [], []
    for test in tests:
        outcome = OUTCOMES[test.passed]
        marked = fill('<span class="outcome {}">{}</span>', outcome, outcome)
        rows.append([test.question, test.measured, test.asked, marked])
        reasons.append([test.question, test.beside, test.because])
    conditions = sum(test.kind == "condition" for test in tests)
    intro = (
        f"{plan.decision} The first {conditions} are conditions: without them the other tests show nothing."
    )
    return [
        fill('<h2 id="tests">The tests of the verdict</h2>\n<p class="quiet">{}</p>', intro),
        table(["question", "measured", "threshold", "outcome"], rows, "tests"),
        fill(
            "<details><summary>what was measured beside it, and the reasons of the thresholds</summary>\n{}\n"
            "</details>",
            table(["question", "measured beside it", "reason of the threshold"], reasons, "tests"),
        ),
    ]


def _remarks(plan: Plan) -> list[Html]:
    items = join(fill("<li>{}</li>", remark) for remark in plan.remarks)
    folded = "<details><summary>remarks on the split</summary>\n<ul>\n{}\n</ul>\n</details>"
    return [fill(folded, items)] if items else []
