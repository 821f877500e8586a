"""The results of a GPU's benchmark as a table in markdown, and as a page."""

from collections.abc import Mapping
from typing import Any

from framelens.benchmarks.gpu.readings import Reading
from framelens.reports.page.markup import Html, fill, pairs, table
from framelens.reports.page.page import document as html_document

HEADS = ("quantity", "value", "beside it")
ABOUT = ("command", "created", "git_commit", "versions")


def title_of(document: Mapping[str, Any]) -> str:
    """The card's name or, of a rehearsal, that no GPU was measured."""
    if document["is_rehearsal"]:
        return f"Rehearsal on a CPU ({document['card']}) at toy sizes: these are not numbers of a GPU"
    return f"GPU benchmark: {document['card']}"


def table_text(document: Mapping[str, Any]) -> str:
    """The results in markdown: a table of what was measured, a list of what was not."""
    lines = [f"# {title_of(document)}", "", f"`{document['command']}`, {document['created']}"]
    for section in document["sections"].values():
        lines += ["", f"## {section['title']}", ""]
        rows = readings_of(section)
        if not rows:
            lines.append(f"{section['status']}: {section['why']}")
            continue
        lines += [f"| {' | '.join(HEADS)} |", "|---|---|---|"]
        lines += [f"| {_cell(row.what)} | {_cell(row.text)} | {_cell(row.beside)} |" for row in rows]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def page(document: Mapping[str, Any]) -> Html:
    """The results as one HTML document that needs no other file."""
    title = title_of(document)
    parts = [fill("<h1>{}</h1>", title)]
    if document["is_rehearsal"]:
        parts.append(fill('<p class="banner">{}</p>', title))
    for section in document["sections"].values():
        parts.append(fill("<h2>{}</h2>", section["title"]))
        rows = readings_of(section)
        if rows:
            parts.append(table(HEADS, ([row.what, row.text, row.beside] for row in rows), "numbers"))
            parts.append(fill('<p class="quiet">Took {} s.</p>', f"{section['seconds']:.0f}"))
        else:
            parts.append(fill("<p>{}: {}</p>", section["status"].capitalize(), section["why"]))
    parts.append(fill("<h2>How this was run</h2>\n{}", pairs((name, document[name]) for name in ABOUT)))
    return html_document(title, parts)


def readings_of(section: Mapping[str, Any]) -> list[Reading]:
    """The values of a section; none of one that was not measured."""
    return [Reading(**values) for values in section.get("readings", [])]
