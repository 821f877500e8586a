"""One self-contained HTML page per run: verdict, findings, figures, numbers in words, settings.

    write_page(run, drawn, not_drawn)    # -> runs/<model>/<run>/page.html

The page needs no network; its script adds reading values and choosing layers, nothing else.
"""

import base64
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path

from framelens.analyses.decision.findings import DECISION, Finding
from framelens.reports.drawing.effects import datasets
from framelens.reports.findings.findings import findings
from framelens.reports.page.chooser import choices, chooser_section
from framelens.reports.page.small_figures import INTERVENTIONS, Small, small_figures
from framelens.reports.page.verdict import banner, read_plan, verdict_parts
from framelens.reports.runs import Run

IDENTITY = ("name", "network", "file", "sha256", "parameters", "videos")
OUTCOMES = {True: "passed", False: "failed", None: "open"}


@dataclass(frozen=True)
class PageFigure:
    """A figure of the page: its picture, title, caption and numbers in words."""

    name: str
    title: str
    caption: str
    words: str
    png: Path


def write_page(
    run: Run,
    drawn: list[PageFigure],
    not_drawn: Mapping[str, list[str]],
    compose: Callable[..., str] | None = None,
) -> Path:
    """Writes page.html into the run folder and returns its path.

    `not_drawn` gives, by title, the datasets that the run lacks for the figures that are left out. `compose`
    makes the page from the same arguments, as `page` does.
    """
    target = run.folder / "page.html"
    partial = run.folder / ".page.partial.html"
    partial.write_text((compose or page)(run, drawn, not_drawn), encoding="utf-8")
    os.replace(partial, target)
    return target


def page(run: Run, drawn: list[PageFigure], not_drawn: Mapping[str, list[str]]) -> str:
    """The page as one string of HTML."""
    name, plan = escape(f"{run.model}, run {run.name}"), read_plan(run)
    measured = datasets(run, *INTERVENTIONS)
    small, data = small_figures(run, measured, plan), choices(run, measured)
    parts = [
        *banner(run, plan),
        f"<h1>{name}</h1>",
        f'<p class="quiet">{escape(summary_line(run))}</p>',
        *verdict_parts(run, plan, small),
        *chooser_section(data),
        '<h2 id="findings">Two findings, tested on this run</h2>\n<div class="findings">',
        *(finding_card(number, finding) for number, finding in enumerate(findings(run), 1)),
        "</div>",
        f'<p class="quiet">{escape(DECISION)} Similarity and attention mass are observations: only '
        "an intervention shows whether a layer is needed.</p>",
        *contents(drawn),
        *(figure_section(figure) for figure in drawn),
        *missing_section(not_drawn),
        *settings_section(run),
        script(small, data),
    ]
    return document(name, parts)


def contents(drawn: list[PageFigure]) -> list[str]:
    """Links to the figures below."""
    links = (f'<a href="#{escape(figure.name)}">{escape(figure.title)}</a>' for figure in drawn)
    return [f'<nav aria-label="Figures"><p><b>In detail:</b> {" · ".join(links)}</p></nav>'] if drawn else []


def script(small: list[Small], data: Mapping) -> str:
    """The numbers that a reader can point at and choose, and the script that shows them."""
    points = {figure.name: figure.chart.points() for figure in small if figure.chart}
    numbers = json.dumps({"small": points, **data}, ensure_ascii=False, separators=(",", ":"))
    code = (Path(__file__).parent / "page.js").read_text(encoding="utf-8")
    # "<" would let a label end the element.
    numbers = numbers.replace("<", "\\u003c")
    return f'<script type="application/json" id="numbers">{numbers}</script>\n<script>\n{code}</script>'


def document(name: str, parts: list[str]) -> str:
    """One HTML document that needs no other file; name and parts are HTML already."""
    css = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
    body = "\n".join(parts)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{name}</title>\n'
        f"<style>\n{css}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def summary_line(run: Run) -> str:
    """What was run, in one sentence."""
    settings = run.manifest["settings"]
    sigmas, scale = run.manifest["sigmas"], settings.get("guidance", 1)
    guided = "" if scale == 1 else f", guidance scale {scale:g} in rollouts"
    return (
        f"{settings['clips']} clips of {settings['frames']} frames, the first {settings['context']} given; "
        f"{settings['steps']} denoising steps from sigma {max(sigmas):.2g} (noise) to {min(sigmas):.2g} "
        f"(clean){guided}; probed frames {', '.join(str(frame) for frame in settings['probed_frames'])}."
    )


def finding_card(number: int, finding: Finding) -> str:
    """A claim, its verdict, its tests with their outcome, and the reasons for the thresholds."""
    tests = "\n".join(
        f"<li><b>{escape(test.question.ask)}</b> {escape(test.measured)} "
        f'<span class="outcome">{OUTCOMES[test.passed].capitalize()}.</span></li>'
        for test in finding.tests
    )
    remarks = "\n".join(f"<p>{escape(remark)}</p>" for remark in finding.remarks)
    return (
        f'<section class="finding">\n<h3>{number}. {escape(finding.claim)}</h3>\n'
        f'<p><span class="verdict">{finding.verdict.capitalize()}</span> in this run.</p>\n'
        f"<ol>\n{tests}\n</ol>\n{remarks}\n"
        f'<p class="quiet">{escape(" ".join(finding.reasons))}</p>\n</section>'
    )


def figure_section(figure: PageFigure) -> str:
    """A figure with its picture inside the page, its numbers in words and its caption."""
    encoded = base64.b64encode(figure.png.read_bytes()).decode("ascii")
    title = escape(figure.title)
    return (
        f'<section id="{escape(figure.name)}">\n<h2>{title}</h2>\n<figure>\n<div class="wide" tabindex="0">'
        f'<img alt="{title}. {escape(figure.words)}" src="data:image/png;base64,{encoded}"></div>\n'
        f"<figcaption><p>{escape(figure.words)}</p>\n"
        f'<p class="quiet">{escape(figure.caption)}</p></figcaption>\n</figure>\n</section>'
    )


def missing_section(not_drawn: Mapping[str, list[str]]) -> list[str]:
    """The figures that are left out and the datasets that they need; empty where all figures are drawn."""
    if not not_drawn:
        return []
    items = [
        f"<li>{escape(name)}: needs {escape(', '.join(n if ' ' in n else f'{n}.nc' for n in needs))}</li>"
        for name, needs in not_drawn.items()
    ]
    return [
        "<h2>Not drawn</h2>",
        "<p>This run has not measured what these figures need: it was not requested, or its model "
        "or clips do not allow it.</p>",
        "<ul>",
        *items,
        "</ul>",
    ]


def settings_section(run: Run) -> list[str]:
    """Everything that identifies the model and repeats the run."""
    manifest, model = run.manifest, run.manifest["model"]
    identity = {key: model[key] for key in IDENTITY if key in model}
    origin = {key: manifest[key] for key in ("created", "git_commit") if key in manifest}
    groups = {
        "The model": identity,
        "Its geometry": model["geometry"],
        "Its training": model.get("training") or {},
        "Settings": manifest["settings"] | {"sigmas": [round(sigma, 4) for sigma in manifest["sigmas"]]},
        "Versions": origin | manifest.get("versions", {}),
        "Timings": manifest.get("timings", {}),
    }
    parts = ["<h2>How this was run</h2>", f"<p><code>{escape(str(manifest['command']))}</code></p>"]
    for name, values in groups.items():
        if values:
            rows = (
                f"<tr><th>{escape(str(k).replace('_', ' '))}</th><td>{escape(spell_setting(v))}</td></tr>"
                for k, v in values.items()
            )
            parts += [f"<h3>{name}</h3>", "<table>", *rows, "</table>"]
    return parts


def spell_setting(value: object) -> str:
    """A setting as text: lists with commas, mappings as `name value`, None as a dash."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {spell_setting(item)}" for key, item in value.items()) or "–"
    if isinstance(value, (list, tuple)):
        return ", ".join(spell_setting(item) for item in value) or "–"
    return "–" if value is None else f"{value:,}" if type(value) is int and value >= 10000 else str(value)
