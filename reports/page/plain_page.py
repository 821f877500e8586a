"""The page of a run that tests no findings: figures, the printed text, how it was run.

The manifest's `title` and `summary` are at the top, its `text` is shown as printed, its mappings are tables.
"""

from collections.abc import Mapping
from html import escape

from framelens.reports.page.page import PageFigure, document, figure_section, missing_section, spell_setting
from framelens.reports.runs import Run

SHOWN_ELSEWHERE = ("kind", "title", "summary", "text", "command", "complete")


def plain_page(run: Run, drawn: list[PageFigure], not_drawn: Mapping[str, list[str]]) -> str:
    """The page as one string of HTML."""
    manifest = run.manifest
    name = escape(f"{manifest.get('title', run.kind)}, run {run.name}")
    parts = [f"<h1>{name}</h1>", f'<p class="quiet">{escape(manifest.get("summary", ""))}</p>']
    parts += [figure_section(figure) for figure in drawn]
    parts += missing_section(not_drawn)
    if manifest.get("text"):
        printed = escape(manifest["text"])
        parts.append(f'<h2>As it was printed</h2>\n<div class="wide" tabindex="0"><pre>{printed}</pre></div>')
    parts += ["<h2>How this was run</h2>", f"<p><code>{escape(str(manifest.get('command', '')))}</code></p>"]
    shown = {key: value for key, value in manifest.items() if key not in SHOWN_ELSEWHERE}
    single = {key: value for key, value in shown.items() if not isinstance(value, Mapping)}
    groups = {"run": single} | {key: value for key, value in shown.items() if isinstance(value, Mapping)}
    for group, values in groups.items():
        rows = (
            f"<tr><th>{escape(str(key).replace('_', ' '))}</th><td>{escape(spell_setting(value))}</td></tr>"
            for key, value in values.items()
        )
        parts += [f"<h3>{escape(group.replace('_', ' ').capitalize())}</h3>", "<table>", *rows, "</table>"]
    return document(name, parts)
