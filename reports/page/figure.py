"""A figure on a page: its picture, its takeaway, the folded words, and links to its files inside the page."""

import base64
import gzip
from dataclasses import dataclass
from pathlib import Path

from framelens.reports.page.markup import Html, fill, join

KINDS = {"pdf": "application/pdf", "svg": "image/svg+xml", "csv": "text/csv"}
MOST_UNPACKED = 50_000
"""Bytes from which on a CSV file inside the page is packed by gzip, which pandas reads as it is."""


@dataclass(frozen=True)
class PageFigure:
    """A figure of the page: its picture, title, caption and numbers in words."""

    name: str
    title: str
    caption: str
    words: str
    png: Path


def figure_section(figure: PageFigure) -> Html:
    """A figure with its picture inside the page and its first sentence; the other words are folded."""
    first, _, others = figure.words.partition(". ")
    return fill(
        '<section class="figure" id="{name}">\n<h2>{title}</h2>\n<p class="takeaway">{first}</p>\n<figure>\n'
        '<div class="wide" tabindex="0">'
        '<img alt="{title}. {words}" src="data:image/png;base64,{picture}"></div>\n'
        "<figcaption><details><summary>numbers and how to read them</summary><p>{others}</p>\n"
        '<p class="quiet">{caption}</p></details></figcaption>\n</figure>\n<p class="links">{links}</p>\n'
        "</section>",
        name=figure.name,
        title=figure.title,
        first=f"{first}." if others else first,
        words=figure.words,
        others=others,
        caption=figure.caption,
        picture=base64.b64encode(figure.png.read_bytes()).decode("ascii"),
        links=links_to(figure),
    )


def links_to(figure: PageFigure) -> Html:
    """Links to the same figure as PDF and to its numbers, which are inside the page, too."""
    links = []
    for kind, media in KINDS.items():
        file = figure.png.with_suffix(f".{kind}")
        if file.exists():
            name, content, label = file.name, file.read_bytes(), kind.upper()
            if kind == "csv" and len(content) > MOST_UNPACKED:
                name, content, media = f"{name}.gz", gzip.compress(content, mtime=0), "application/gzip"
                label += ", packed"
            template = '<a download="{}" href="data:{};base64,{}">{}</a>'
            links.append(fill(template, name, media, base64.b64encode(content).decode("ascii"), label))
    return join(links, " · ")
