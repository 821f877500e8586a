"""One self-contained HTML page per run: verdict, findings, figures, numbers in words, settings.

    write_page(run, drawn, not_drawn)    # -> runs/<model>/<run>/page.html

The page needs no network; its script adds reading values and choosing layers, nothing else.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from framelens.analyses.decision.findings import DECISION, Finding
from framelens.records import write_text
from framelens.records.manifest import ProbeManifest
from framelens.reports.datasets import opened_once
from framelens.reports.drawing.effects import datasets
from framelens.reports.findings.findings import findings
from framelens.reports.page.attention import attention_section
from framelens.reports.page.chooser import choices, chooser_section
from framelens.reports.page.figure import PageFigure, figure_section
from framelens.reports.page.kept_frames import layer_frames
from framelens.reports.page.markup import Html, fill, join, numbers, own_file, pairs
from framelens.reports.page.small_figures import INTERVENTIONS, Small, small_figures
from framelens.reports.page.verdict import banner, verdict_parts
from framelens.reports.runs import Run

IDENTITY = ("name", "network", "file", "sha256", "parameters", "videos")
OUTCOMES = {True: "passed", False: "failed", None: "open"}


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
    text = (compose or page)(run, drawn, not_drawn)
    return write_text(run.folder / "page.html", text)


@opened_once()
def page(run: Run, drawn: list[PageFigure], not_drawn: Mapping[str, list[str]]) -> Html:
    """The whole page."""
    name, plan = f"{run.model}, run {run.name}", run.plan
    measured = datasets(run, *INTERVENTIONS)
    small, data = small_figures(run, measured, plan), choices(run, measured)
    found, frames = findings(run), layer_frames(run)
    data["frames"] = frames.layers
    parts = [
        *banner(run, plan),
        fill("<h1>{}</h1>", name),
        fill('<p class="quiet">{}</p>', summary_line(run)),
        *(fill("<p>{}</p>", note) for note in run.probe.notes),
        *verdict_parts(run, plan, small, found),
        *chooser_section(data, frames.parts),
        *attention_section(run),
        fill('<h2 id="findings">Two findings, tested on this run</h2>\n<div class="findings">'),
        *(finding_card(number, finding) for number, finding in enumerate(found, 1)),
        fill("</div>"),
        fill(
            '<p class="quiet">{} Similarity and attention mass are observations: only an intervention shows '
            "whether a layer is needed.</p>",
            DECISION,
        ),
        *contents(drawn),
        *(figure_section(figure) for figure in drawn),
        *missing_section(not_drawn),
        *settings_section(run),
        script(small, data),
    ]
    return document(name, parts)


def contents(drawn: list[PageFigure]) -> list[Html]:
    """Links to the figures below."""
    if not drawn:
        return []
    links = join((fill('<a href="#{}">{}</a>', figure.name, figure.title) for figure in drawn), " · ")
    return [fill('<nav aria-label="Figures"><p><b>In detail:</b> {}</p></nav>', links)]


def script(small: list[Small], data: Mapping) -> Html:
    """The numbers that a reader can point at and choose, and the script that shows them."""
    points = {figure.name: figure.chart.points() for figure in small if figure.chart}
    stored = numbers("numbers", {"small": points, **data})
    return fill("{}\n<script>\n{}</script>", stored, own_file("page.js"))


def document(name: str, parts: list[Html]) -> Html:
    """One HTML document that needs no other file."""
    return fill(
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{}</title>\n'
        "<style>\n{}</style>\n</head>\n<body>\n<main>\n{}\n</main>\n</body>\n</html>\n",
        name, own_file("page.css"), join(parts),
    )  # fmt: skip


def summary_line(run: Run) -> str:
    """What was run, in one sentence."""
    settings, sample = run.manifest.settings, run.probed_sample
    sigmas, scale = run.probe.sigmas, settings["guidance"]
    guided = "" if scale == 1 else f", guidance scale {scale:g} in rollouts"
    return (
        f"{sample.describe()} of {settings['frames']} frames, the first {settings['context']} given; "
        f"{settings['steps']} denoising steps from sigma {max(sigmas):.2g} (noise) to {min(sigmas):.2g} "
        f"(clean){guided}; probed frames {', '.join(str(frame) for frame in settings['probed_frames'])}."
    )


def finding_card(number: int, finding: Finding) -> Html:
    """A claim, its verdict, its tests with their outcome, and the reasons for the thresholds."""
    tests = join(
        fill(
            '<li><b>{}</b> {} <span class="outcome">{}.</span></li>',
            test.question.ask, test.measured, OUTCOMES[test.passed].capitalize(),
        )
        for test in finding.tests
    )  # fmt: skip
    return fill(
        '<section class="finding">\n<h3>{number}. {claim}</h3>\n'
        '<p><span class="verdict">{verdict}</span> in this run.</p>\n'
        "<details><summary>its tests and the reasons of their thresholds</summary>\n<ol>\n{tests}\n</ol>\n"
        '{remarks}\n<p class="quiet">{reasons}</p>\n</details></section>',
        number=number,
        claim=finding.claim,
        verdict=finding.verdict.capitalize(),
        tests=tests,
        remarks=join(fill("<p>{}</p>", remark) for remark in finding.remarks),
        reasons=" ".join(finding.reasons),
    )


def missing_section(not_drawn: Mapping[str, list[str]]) -> list[Html]:
    """The figures that are left out and the datasets that they need; empty where all figures are drawn."""
    if not not_drawn:
        return []
    items = (
        fill("<li>{}: needs {}</li>", name, ", ".join(n if " " in n else f"{n}.nc" for n in needs))
        for name, needs in not_drawn.items()
    )
    return [
        fill(
            "<h2>Not drawn</h2>\n<p>This run has not measured what these figures need: it was not requested, "
            "or its model or clips do not allow it.</p>\n<ul>\n{}\n</ul>",
            join(items),
        )
    ]


def settings_section(run: Run) -> list[Html]:
    """Everything that identifies the model and repeats the run."""
    manifest, model = run.probe, run.probe.model
    identity = {key: getattr(model, key) for key in IDENTITY}
    origin = {"created": manifest.created, "git_commit": manifest.git_commit}
    groups = {
        "The model": identity,
        "Its geometry": model.geometry,
        "Its training": model.training or {},
        "What was computed on": computed_on(manifest),
        "Settings": manifest.settings | {"sigmas": [round(sigma, 4) for sigma in manifest.sigmas]},
        "Versions": origin | manifest.versions,
    }
    tables = (
        fill("<h3>{}</h3>\n{}", name, pairs((key, spell_setting(value)) for key, value in values.items()))
        for name, values in groups.items()
        if values
    )
    return [
        fill("<h2>How this was run</h2>\n<p><code>{}</code></p>", manifest.command),
        fill(
            "<details><summary>the model, its inputs, settings and versions</summary>\n{}\n</details>",
            join(tables),
        ),
    ]


def computed_on(manifest: ProbeManifest) -> dict[str, str]:
    """Hashes of weights and code, and each input file with the places of its clips; empty for older runs."""
    identity = manifest.identity
    if identity is None:
        return {}
    rows = {"weights": identity.weights, "framelens": identity.framelens}
    rows |= {file.name: file.code for file in identity.code}
    for file in identity.inputs:
        read = [window for window in manifest.windows if window.get("file") == file.name]
        parts = [f"{file.bytes:,} bytes", f"SHA-256 {file.sha256}"]
        if read:
            starts = ", ".join(str(window.get("first_frame")) for window in read)
            parts.append(f"{read[0].get('frame_rate')} frames per second, clips from frame {starts}")
        rows[f"{file.kind} {file.name}"] = "; ".join(parts)
    return rows


def spell_setting(value: object) -> str:
    """A setting as text: lists with commas, mappings as `name value`, None as a dash."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {spell_setting(item)}" for key, item in value.items()) or "–"
    if isinstance(value, (list, tuple)):
        return ", ".join(spell_setting(item) for item in value) or "–"
    return "–" if value is None else f"{value:,}" if type(value) is int and value >= 10000 else str(value)
