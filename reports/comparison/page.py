"""The page of a comparison: what was compared, verdicts side by side, curves with their differences.

write(Compared.of(runs), Path("runs/comparisons/a--b"))     # -> .../page.html and the figures beside it
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from framelens.records import write_text
from framelens.records.damage import NotReadable, NotShown
from framelens.reports.comparison import curves
from framelens.reports.comparison.compared import Compared
from framelens.reports.comparison.measures import MEASURES
from framelens.reports.datasets import opened_once
from framelens.reports.drawing import style
from framelens.reports.findings.findings import findings
from framelens.reports.page.figure import PageFigure, figure_section
from framelens.reports.page.markup import Html, fill, join, table
from framelens.reports.page.page import document, spell_setting
from framelens.reports.runs import Run

PAIRED = (
    "Clip i is the same video in every run, so differences are taken clip by clip. Their intervals are 95 % "
    "intervals over clips (Student's t)."
)
UNPAIRED = (
    "The runs do not share their clips, so the clips of one run are compared with those of the other. The "
    "intervals of the differences are Welch's 95 % intervals. They are wider than clip by clip: give both "
    "runs the same --videos, --seed and --frames."
)
LAYERS_DIFFER = (
    "The models have different layers: their curves are drawn along the depth, and differences by layer are "
    "left out."
)


@opened_once()
def write(compared: Compared, out: Path) -> Path:
    """Writes the figures and page.html into the folder, and returns the page's path."""
    drawn, missing = [], {}
    for measure in MEASURES:
        lacking = compared.lacking(measure)
        if len(compared.runs) - len(lacking) < 2:
            missing[measure.title] = lacking
            continue
        try:
            figure, numbers = curves.draw(measure, compared)
        except (NotReadable, NotShown) as reason:
            missing[measure.title] = {"all": [str(reason)]}
            continue
        png, *_ = style.save(figure, numbers, out / measure.name)
        sentences = " ".join(curves.words(numbers, measure))
        note = "Left out, since it was not measured: " + ", ".join(lacking) + "." if lacking else ""
        drawn.append(PageFigure(measure.name, measure.title, note, sentences, png))
    return write_text(out / "page.html", page(compared, drawn, missing))


def page(compared: Compared, drawn: list[PageFigure], missing: Mapping[str, Mapping[str, list[str]]]) -> Html:
    """The whole page."""
    names = compared.names
    has_layers = len({run.geometry["layers"] for run in compared.runs}) == 1
    parts = [
        fill("<h1>{}</h1>", " and ".join(names)),
        fill('<p class="quiet">{}</p>', PAIRED if compared.share_clips else UNPAIRED),
        *([] if has_layers else [fill('<p class="quiet">{}</p>', LAYERS_DIFFER)]),
        fill('<h2 id="verdicts">Verdicts side by side</h2>'),
        table(["", *names], _verdict_rows(compared.runs), "numbers"),
        fill('<h2 id="settings">Settings that differ</h2>'),
        show_differences(compared.names, compared.settings_that_differ),
        *(figure_section(figure) for figure in drawn),
        *_missing(missing),
        fill('<h2 id="runs">The runs</h2>'),
        table(
            ["run", "command"],
            [[n, r.probe.command] for n, r in zip(names, compared.runs, strict=True)],
            "numbers",
        ),
    ]
    return document("Comparison: " + ", ".join(names), parts)


def _verdict_rows(runs: tuple[Run, ...]) -> list[list[object]]:
    plans, found = [run.plan for run in runs], [_findings(run) for run in runs]
    return [
        ["separable?", *(plan.verdict if plan else "no plan" for plan in plans)],
        ["why", *(plan.reason if plan else "-" for plan in plans)],
        ["finding 1: features repeat over steps", *(pair[0] for pair in found)],
        ["finding 2: deep layers attend little to the past", *(pair[1] for pair in found)],
        ["parameters", *(f"{run.probe.model.parameters:,}" for run in runs)],
        ["layers", *(run.geometry["layers"] for run in runs)],
        ["clips", *(run.manifest.settings["clips"] for run in runs)],
    ]


def _findings(run: Run) -> tuple[str, str]:
    try:
        first, second = findings(run)
    except (ValueError, OSError):
        return "not measured", "not measured"
    return first.verdict, second.verdict


def show_differences(names: Sequence[str], differ: Mapping[str, Sequence[object]]) -> Html:
    """A row for each setting that differs, with a column for each name."""
    if not differ:
        return fill("<p>All settings are the same.</p>")
    rows = [[name.replace("_", " "), *map(spell_setting, values)] for name, values in differ.items()]
    return table(["setting", *names], rows, "numbers")


def _missing(missing: Mapping[str, Mapping[str, list[str]]]) -> list[Html]:
    if not missing:
        return []
    items = []
    for title, lacking in missing.items():
        why = "; ".join(f"{name} lacks {', '.join(datasets)}" for name, datasets in lacking.items())
        items.append(fill("<li>{}: {}</li>", title, why))
    return [fill("<h2>Not compared</h2>\n<ul>\n{}\n</ul>", join(items))]
