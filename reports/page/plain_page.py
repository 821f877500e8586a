"""The page of a run that tests no findings: figures, the printed text, how it was run.

The manifest's `title` and `summary` are at the top, its `text` is shown as printed, its mappings are tables.
"""

from collections.abc import Mapping
from dataclasses import asdict

from framelens.records.manifest import TitledManifest
from framelens.reports.page.figure import PageFigure, figure_section
from framelens.reports.page.markup import Html, fill, pairs
from framelens.reports.page.page import document, missing_section, spell_setting
from framelens.reports.runs import Run

SHOWN_ELSEWHERE = ("title", "summary", "text", "command", "complete")


def plain_page(run: Run, drawn: list[PageFigure], not_drawn: Mapping[str, list[str]]) -> Html:
    """The whole page."""
    manifest = asdict(run.manifest_as(TitledManifest))
    name = f"{manifest['title']}, run {run.name}"
    parts = [fill('<h1>{}</h1>\n<p class="quiet">{}</p>', name, manifest["summary"])]
    parts += [figure_section(figure) for figure in drawn]
    parts += missing_section(not_drawn)
    if manifest.get("text"):
        printed = '<h2>As it was printed</h2>\n<div class="wide" tabindex="0"><pre>{}</pre></div>'
        parts.append(fill(printed, manifest["text"]))
    parts.append(fill("<h2>How this was run</h2>\n<p><code>{}</code></p>", manifest["command"]))
    shown = {key: value for key, value in manifest.items() if key not in SHOWN_ELSEWHERE}
    single = {key: value for key, value in shown.items() if not isinstance(value, Mapping)}
    groups = {"run": single} | {key: value for key, value in shown.items() if isinstance(value, Mapping)}
    for group, values in groups.items():
        rows = pairs((key, spell_setting(value)) for key, value in values.items())
        parts.append(fill("<h3>{}</h3>\n{}", group.replace("_", " ").capitalize(), rows))
    return document(name, parts)
