"""The page of all runs: each with its verdict, settings, date and a looped picture; a click opens its page.

write_index(known_runs("runs"), Path("runs"))      # -> runs/index.html
"""

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from framelens.records import write_text
from framelens.records.runs import KnownRun
from framelens.reports.page.markup import Html, fill, join
from framelens.reports.page.page import document
from framelens.reports.page.player import film_figure, films_of
from framelens.reports.plots.samples import read_samples
from framelens.reports.runs import open_run

MOST_PICTURES = 40
"""Runs that have a picture; the others are listed without, so that the page stays small."""


def write_index(runs: Sequence[KnownRun], root: Path) -> Path:
    """Writes index.html into the folder of all runs; links are relative to it."""
    newest = sorted(runs, key=lambda run: run.created, reverse=True)
    cards = [_card(run, root, number < MOST_PICTURES) for number, run in enumerate(newest)]
    parts = [
        fill("<h1>{} run{}</h1>", len(runs), "s" * (len(runs) != 1)),
        fill(
            '<p class="quiet">The newest first. <code>framelens compare</code> shows several on one page.</p>'
        ),
        fill('<div class="runs">{}</div>', join(cards)),
    ]
    text = document("framelens runs", parts)
    return write_text(root / "index.html", text)


def _card(run: KnownRun, root: Path, has_picture: bool) -> Html:
    page = run.folder / "page.html"
    name = fill("{}", run.name)
    if page.exists():
        name = fill('<a href="{}">{}</a>', quote(page.relative_to(root).as_posix()), run.name)
    state = (run.verdict or f"a run of kind {run.kind}") if run.is_complete else "not finished"
    return fill(
        '<section class="answer {}"><h2>{}</h2><p><b>{}</b></p>{}\n<p class="quiet">{}<br>{}, {} MB</p>'
        "</section>",
        state.replace(" ", "-"), name, state, _picture(run) if has_picture else Html(""),
        run.settings or "default settings", run.created[:10], f"{run.size / 1e6:.1f}",
    )  # fmt: skip


def _picture(run: KnownRun) -> Html:
    """What the model generates from its own past, or else the last film of the first clip."""
    if not run.is_complete or not (run.folder / "samples.nc").exists():
        return Html("")
    opened = open_run(run.folder)
    films = films_of(*read_samples(opened), 0, int(opened.manifest.settings["context"]))
    return fill('<div class="films">{}</div>', film_figure(0, films[-1], films[-1].sprite()))
