"""The page of a run: verdict and warnings first, the numbers measured, and a script that does as asked."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import fake_interventions
import fake_run
import numpy as np
import pytest

from framelens.analyses.decision.kept import Context
from framelens.records.plan import PlannedClock
from framelens.reports.drawing.effects import datasets, kept_share_of_random, ratio
from framelens.reports.findings.findings import findings
from framelens.reports.page.page import page, summary_line
from framelens.reports.page.small_figures import INTERVENTIONS, small_figures
from framelens.reports.page.split_section import of_bytes, of_many, split_parts
from framelens.reports.page.verdict import BANNER, banner, verdict_parts
from framelens.reports.runs import open_run

pytestmark = pytest.mark.slow

SMALL = {"layers": 4, "steps": 4, "heads": 2, "clips": 5}
ERRORS = "<script>window.failures = []; addEventListener('error', (e) => failures.push(e.message));</script>"
DRIVER = """<script>
const svg = document.querySelector("figure[data-figure=cut] svg"), box = svg.getBoundingClientRect();
const text = (id) => document.getElementById(id).textContent;
const readout = () => document.querySelector("figure[data-figure=cut] .readout").textContent;
const shown = {before: readout(), chooser: !document.getElementById("chooser").hidden, failures};
const point = (share) => svg.dispatchEvent(new PointerEvent("pointermove",
  {clientX: box.left + share * box.width, clientY: box.top + 20}));
shown.first = text("interventions-title");
point(0.2); shown.left = readout();
point(0.95); shown.right = readout();
svg.dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowLeft"})); shown.arrow = readout();
svg.dispatchEvent(new KeyboardEvent("keydown", {key: "Enter"})); shown.entered = text("interventions-title");
const select = document.getElementById("choose-layer");
select.value = "1"; select.dispatchEvent(new Event("change"));
shown.chosen = text("interventions-title"); shown.table = text("interventions"); shown.hash = location.hash;
shown.similarity = text("similarity-readout");
const start = document.getElementById("choose-start");
start.value = "2"; start.dispatchEvent(new Event("change")); shown.later = text("interventions");
const step = document.getElementById("choose-step");
step.value = "1"; step.dispatchEvent(new Event("change")); shown.step = text("similarity-readout");
const map = document.querySelector("canvas"), pixel = map.getContext("2d").getImageData(0, 0, 1, 1).data;
shown.pixel = Array.from(pixel);
select.value = "embed"; select.dispatchEvent(new Event("change")); shown.embed = text("interventions");
document.body.appendChild(document.createElement("pre")).id = "shown";
document.getElementById("shown").textContent = JSON.stringify(shown);
</script>"""


def write(folder, **options):
    options = SMALL | {"verdict": "separable"} | options
    return open_run(fake_run.write(folder / "fake" / "first", **options))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def html(run):
    return page(run, [], {})


def browse(folder, html, link=""):
    """What Chromium makes of the page, and what it complains of."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("Chromium is not installed: WHAT THE PAGE'S SCRIPT DOES IS NOT TESTED")
    path = folder / "page.html"
    path.write_text(html, encoding="utf-8")
    command = [
        chromium, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
        f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=2000", "--dump-dom",
        f"file://{path}{link}",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def add_driver(html, driver):
    """The page with a script that points and chooses, and with a list of the errors on the way."""
    return html.replace("<head>", f"<head>{ERRORS}").replace("</body>", f"{driver}</body>")


def read_shown(folder, html):
    """What the driver of a page wrote at its end."""
    dom, complaints = browse(folder, html)
    assert complaints == []
    found = re.search(r'<pre id="shown">(.*?)</pre>', dom, re.DOTALL)
    assert found, "the script stopped before its end"
    return json.loads(found[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))


@pytest.fixture(scope="module")
def shown(html, tmp_path_factory):
    """What the page shown while a script pointed and chose, and errors on the way."""
    return read_shown(tmp_path_factory.mktemp("browser"), add_driver(html, DRIVER))


def test_the_page_loads_without_errors_and_shows_its_chooser(shown):
    assert shown["failures"] == []
    assert shown["chooser"] and shown["before"] == ""


def test_pointing_reads_the_nearest_layer(shown):
    assert shown["first"].endswith(" 0"), "at the embedding nothing is measured"
    assert re.match(r"\D+0\D+0\.0", shown["left"])
    assert re.match(r"\D+3\D", shown["right"])
    assert re.match(r"\D+2\D", shown["arrow"]) and shown["entered"].endswith(" 2")


def test_choosing_changes_the_table_and_the_link(shown):
    assert shown["chosen"].endswith(" 1") and "layer=1" in shown["hash"]
    assert len({shown["table"], shown["later"], shown["embed"]}) == 3


def test_choosing_a_step_changes_what_the_matrix_says(shown):
    assert re.match(r"\D+1\D+0\D+1\D+3\b", shown["similarity"])
    assert re.match(r"\D+1\D+1\D+0\.75\D+3\b", shown["step"])
    assert shown["pixel"][3] == 255


def test_a_link_opens_the_page_at_a_layer(html, tmp_path):
    dom, complaints = browse(tmp_path, html, "#layer=2&step=1")
    assert re.search(r"id=\"interventions-title\"[^<]*>[^<]* 2<", dom) and re.search(
        r"\b2\D+\b1\D+0\.75", dom
    )
    assert complaints == []


def test_the_verdict_comes_first_with_its_reason_and_five_figures(html):
    body = html[html.index("<main>") :]
    texts = ["Separable", "What it fetches &lt;once&gt;", "<svg", "1.87×"]
    places = [body.index(text) for text in [*texts, "3 MiB"]]
    assert places == sorted(places)
    assert body.count("<svg ") == 5 == len(re.findall(r'<svg [^>]*role="img" aria-label="', body))
    assert BANNER not in html


def test_every_small_figure_has_its_null_and_its_interval(run):
    for small in small_figures(run, datasets(run, *INTERVENTIONS), run.plan):
        assert small.chart is not None
        roles = {curve.role for curve in small.chart.curves}
        assert {"trained", "null"} <= roles, small.name
        picture = small.chart.svg("label")
        assert 'class="band trained"' in picture and re.search(r"\d", small.takeaway)
        assert all("[" in text or "±" in text for text in small.chart.points()["text"])


def test_what_is_said_of_a_layer_is_what_was_measured(run):
    cut = run.read("cut")
    error = cut.velocity_error.sel(network="trained", where="from").mean(("clip", "sigma"))
    whole = float(cut.plain_velocity_error.sel(network="trained").mean(("clip", "sigma")))
    share = (float(error[0]) - error) / (float(error[0]) - whole)
    points = small_figures(run, datasets(run, *INTERVENTIONS))[3].chart.points()["text"]
    assert [float(re.search(r"velocity (-?[\d.]+)", text)[1]) for text in points] == pytest.approx(
        share.values, abs=0.0051
    )


def test_random_weights_make_nothing_of_their_past(run):
    cut = run.read("cut")
    assert np.abs(kept_share_of_random(Context(cut), cut)["mean"]).max() < 0.1
    assert np.allclose(ratio(cut, "random", where="from")["mean"], 1, atol=0.1)


def test_the_ratio_by_sigma_is_that_of_means_over_clips(run):
    stored = run.read("leave_one_out")
    trained = stored.sel(network="trained").mean("clip")
    expected = trained.velocity_error / trained.plain_velocity_error
    found = ratio(stored, by_sigma=True)["mean"].transpose(*expected.dims)
    assert np.allclose(found, expected, rtol=1e-5)


def test_failed_controls_are_said_in_red_before_anything_else(tmp_path):
    run = write(tmp_path, controls_hold=False, verdict="open")
    html = page(run, [], {})
    assert html.index(BANNER) < html.index("<h1>") and "own_frame_only" in html
    assert BANNER in banner(run, None)[0]


def test_without_a_plan_the_page_says_what_to_run(tmp_path):
    run = write(tmp_path, verdict=None)
    assert "framelens plan --model fake" in verdict_parts(run, None, [], findings(run))[0]
    for name in fake_interventions.datasets({"clip": 1, "layer": 4, "head": 1}):
        (run.folder / f"{name}.nc").unlink()
    html = page(run, [], {})
    assert "framelens probe --model fake" in html
    assert "<svg" not in html


def test_a_run_with_little_measured_has_a_page_all_the_same(tmp_path):
    run = write(tmp_path, clips=2, verdict="not separable")
    for path in run.folder.glob("*.nc"):
        if path.stem != "leave_one_out":
            path.unlink()
    html = page(run, [], {})
    assert "Not separable" in html and html.count("<svg ") == 1


def test_a_damaged_plan_is_one_line(tmp_path):
    run = write(tmp_path)
    (run.folder / "plan.json").write_text("{")
    with pytest.raises(ValueError, match="plan.json"):
        run.plan  # noqa: B018
    (run.folder / "plan.json").write_text("{}")
    with pytest.raises(ValueError, match="plan.json"):
        run.plan  # noqa: B018


def test_numbers_for_the_script_are_rounded_and_cannot_end_it(html):
    stored = re.search(r'id="numbers">(.*?)</script>', html, re.DOTALL)[1]
    assert "<" not in stored and not re.search(r"\d\.\d{5}", stored)
    numbers = json.loads(stored)
    assert set(numbers) == {"small", "layers", "similarity", "interventions", "frames"}
    values = numbers["similarity"]["values"]["trained"][0]
    assert values[0] == 1000 and all(isinstance(value, int) for value in values)


@pytest.mark.parametrize(
    ("count", "shown"), [(12, "12 bytes"), (1536, "1.5 KiB"), (1000 * 1024, "1000 KiB"), (3 * 2**40, "3 TiB")]
)
def test_bytes_are_spelt(count, shown):
    assert of_bytes(count) == shown


def test_large_counts_are_spelt():
    assert of_many(3_658_416) == "3.66 million" and of_many(12) == "12"


def test_scripts_and_styles_are_beside_the_page():
    for name in ("page.js", "attention.js", "page.css"):
        assert (Path(__file__).parent.parent / "reports/page" / name).stat().st_size < 16_000


def test_measured_rates_come_before_operations():
    plan = fake_interventions.plan({"layer": 6, "clip": 8})
    assert "1.50×" not in "".join(split_parts(plan))
    clock = {"device_name": "a <card>", "device": "cpu", "dtype": "float32", "threads": 2, "speed_up": 1.5}
    clock |= {"measured": "2000-01-01", "machine": {}}
    clock |= {"frame_seconds": 0.5, "dense_frame_seconds": 0.75}
    assert plan.prediction is not None
    nearby = (replace(plan.prediction.nearby[0], clock_speed_up=1.52),)
    plan = replace(plan, prediction=replace(plan.prediction, clock=PlannedClock(**clock), nearby=nearby))
    page = "".join(split_parts(plan))
    assert page.index("1.50×") < page.index("1.87×")
    assert re.search(r"a &lt;card&gt;, float32, 2 .*\b500 ms\b.*\b750 ms\b", page, re.DOTALL)
    assert "1.52×" in page


def test_what_is_saved_without_training_is_shown_where_the_plan_states_it():
    plan = fake_interventions.plan({"layer": 6, "clip": 8})
    assert "without training" not in "".join(split_parts(plan)) and plan.prediction is not None
    plan = replace(plan, prediction=replace(plan.prediction, fetched_once=1.23))
    assert re.search("without training.*1.23×", "".join(split_parts(plan)), re.DOTALL)


def test_without_a_benefit_no_share_of_it_is_shown(tmp_path):
    run = write(tmp_path, verdict=None)
    cut = run.read("cut")
    for name in ("mse", "velocity_error"):
        whole = cut[f"plain_{name}"]
        cut[name] = cut[name] * 0 + whole
    cut.to_netcdf(run.folder / "cut2.nc", engine="netcdf4")
    (run.folder / "cut2.nc").replace(run.folder / "cut.nc")
    run = open_run(run.folder)
    data = datasets(run, *INTERVENTIONS)
    figures = {small.name: small for small in small_figures(run, data)}
    for name in ("reuse", "cut"):
        assert figures[name].chart is None
    assert figures["leave-one-out"].chart is not None


def test_words_are_explained_before_they_are_used_in_figures(html):
    body = html[html.index("<main>") :]
    first = body.index("Benefit of the past: ")
    assert first < body.index("Fetched once: ") < body.index('<figure class="small"')


def test_guidance_is_named_where_there_is_some(run):
    assert "guidance" not in summary_line(run)
    settings = run.manifest.settings | {"guidance": 5.0}
    shown = summary_line(replace(run, manifest=replace(run.manifest, settings=settings)))
    assert re.search(r"guidance\b.*\b5\b", shown)
