"""HTML that cannot be broken by what it shows: every value is text unless a function of this file made it.

fill('<p class="quiet">{}</p>', manifest["summary"])      # Html; the summary is escaped
table(["layer", "kept"], [[3, fill("<b>{}</b>", 0.9)]], "numbers")
join([fill("<h1>{}</h1>", name), *parts])                 # Html; TypeError for a part that is a plain string
"""

import json
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any, LiteralString


class Html(str):
    """Markup that may stand in a page as it is."""

    __slots__ = ()


def text(value: object) -> Html:
    """The value as text of a page; Html stays as it is."""
    return value if isinstance(value, Html) else Html(escape(str(value)))


def fill(template: LiteralString, *values: object, **named: object) -> Html:
    """The template with the values in its `{}`, each as text; the template itself is written in the code."""
    return Html(template.format(*map(text, values), **{name: text(value) for name, value in named.items()}))


def join(parts: Iterable[Html], between: LiteralString = "\n") -> Html:
    """All parts as one; TypeError for a part that may hold the text of a file."""
    parts = list(parts)
    for part in parts:
        if not isinstance(part, Html):
            raise TypeError(f"{part!r} is not Html; make it with fill() or text()")
    return Html(between.join(parts))


def table(heads: Iterable[str], rows: Iterable[Iterable[object]], kind: LiteralString) -> Html:
    """A table that scrolls sideways where it must; cells are text, or Html."""
    head = join((fill('<th scope="col">{}</th>', name) for name in heads), "")
    body = join(fill("<tr>{}</tr>", join((fill("<td>{}</td>", cell) for cell in row), "")) for row in rows)
    return fill(
        '<div class="scroll" tabindex="0"><table class="{}"><thead><tr>{}</tr></thead>\n'
        "<tbody>\n{}\n</tbody></table></div>",
        kind, head, body,
    )  # fmt: skip


def pairs(rows: Iterable[tuple[object, object]]) -> Html:
    """A table of names and values, all as text."""
    body = join(fill("<tr><th>{}</th><td>{}</td></tr>", str(k).replace("_", " "), v) for k, v in rows)
    return fill("<table>\n{}\n</table>", body)


def numbers(name: str, values: Mapping[str, Any]) -> Html:
    """Values for a script of the page, which finds them as JSON under that name."""
    # "<" would let a label end the element.
    content = json.dumps(values, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    return fill('<script type="application/json" id="{}">{}</script>', name, Html(content))


def own_file(name: LiteralString) -> Html:
    """A file of this folder, as it is."""
    return Html((Path(__file__).parent / name).read_text(encoding="utf-8"))
