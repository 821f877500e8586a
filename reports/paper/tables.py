"""The paper's tables with a column of ours beside each of its own, as CSV and LaTeX.

    table = fill(table_of("1"), scores(compare_run) | times(bench_run))
    latex("1", table)

In CSV every line is a row and a measure: `paper` is empty where the value is not known, `ours` is
`not measured` where no run of ours has it.
"""

from collections.abc import Mapping

import pandas as pd

from framelens.analyses.intervals import mean_interval, spell_interval
from framelens.records.manifest import BenchManifest
from framelens.reports.paper.published import STANDS_FOR, TABLES, read_table
from framelens.reports.paper.roles import roles_of
from framelens.reports.runs import Run

NOT_MEASURED = "not measured"
Ours = Mapping[tuple[str, str], tuple[float, float, float, str]]
"""By row and measure: value, low, high and what it is of."""


def table_for(run: Run) -> str:
    """The number of the table that a benchmark or comparison is shown in; ValueError where there is none."""
    of = run.manifest.preset if isinstance(run.manifest, BenchManifest) else run.manifest.settings["videos"]
    if of not in STANDS_FOR:
        known = ", ".join(f"{name} (Table {number})" for name, number in STANDS_FOR.items())
        raise ValueError(f"{run.folder} is about {of}, which stands for no table of the paper: use {known}")
    return STANDS_FOR[of]


def scores(run: Run) -> Ours:
    """PSNR and SSIM of the next frame after an equal number of training steps, with 95 % intervals."""
    result = run.read("compare")
    roles = roles_of([str(arm) for arm in result.arm.values])
    rows, found = TABLES[table_for(run)].rows, {}
    for role, arm in roles.items():
        for measure in ("psnr", "ssim"):
            values = result[measure].sel(arm=arm, sampling="teacher_forced").mean(("frame", "seed"))
            mean, low, high = (float(end) for end in mean_interval(values.values))
            about = f"{arm}, {run.manifest.settings['videos']}, next frame, 95 % interval over clips"
            found[rows[role], measure] = (mean, low, high, about)
    return found


def times(run: Run) -> Ours:
    """Seconds per frame, frames per second, latency and parameters of a benchmark: median, least and most."""
    stored, arms = run.read("bench_split"), run.read("bench_arms")
    manifest = run.manifest_as(BenchManifest)
    roles = roles_of([str(arm) for arm in stored.arm.values])
    rows, found = TABLES[table_for(run)].rows, {}
    for role, arm in roles.items():
        frame = (stored.sample_seconds + stored.encode_seconds).sel(arm=arm).values
        measured = {"seconds_per_frame": frame, "frames_per_second": 1 / frame}
        measured["latency"] = arms.first_frame_seconds.sel(arm=arm).values
        measured["parameters"] = arms.parameters.sel(arm=arm).values.reshape(1) / 1e9
        about = f"{arm}, {manifest.preset}, {manifest.machine['device_name']}, network alone, random weights"
        for measure, values in measured.items():
            middle = float(pd.Series(values).median())
            ends = (float(values.min()), float(values.max())) if len(values) > 1 else (float("nan"),) * 2
            found[rows[role], measure] = (middle, *ends, about)
    return found


def fill(number: str, ours: Ours) -> pd.DataFrame:
    """The table, one line for each row and measure: the paper's value and ours, and where each is from."""
    lines = []
    for line in read_table(number).itertuples():
        value, low, high, about = ours.get((line.row, line.measure), (NOT_MEASURED, None, None, ""))
        measure = TABLES[number].measures[line.measure]
        better = f"{measure.is_better} is better" if measure.is_better else ""
        own = {"ours": value, "ours_low": low, "ours_high": high, "ours_is": about}
        published_as = {"paper": line.value, "paper_source": line.source}
        lines.append({"row": line.row, "measure": measure.heading, "better": better} | published_as | own)
    return pd.DataFrame(lines)


def latex(number: str, table: pd.DataFrame) -> str:
    """The table for a paper: a row for each model, two columns, paper and ours, for each measure."""
    measures = TABLES[number].measures.values()
    arrows = {"lower": r" $\downarrow$", "higher": r" $\uparrow$", "": ""}
    heads = [
        rf"\multicolumn{{2}}{{c}}{{{_escape(measure.heading)}{arrows[measure.is_better]}}}"
        for measure in measures
    ]
    lines = [
        r"% needs \usepackage{booktabs}",
        rf"\begin{{tabular}}{{l{'rr' * len(heads)}}}",
        r"\toprule",
        f" & {' & '.join(heads)} \\\\",
        f" & {' & '.join(['paper & ours'] * len(heads))} \\\\",
        r"\midrule",
    ]
    for row, own in table.groupby("row", sort=False):
        by_heading = {line.measure: line for line in own.itertuples()}
        cells = [cell for measure in measures for cell in _cells(by_heading[measure.heading], measure.digits)]
        lines.append(f"{_escape(str(row))} & {' & '.join(cells)} \\\\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _cells(line, digits: int) -> tuple[str, str]:
    paper = "" if pd.isna(line.paper) else f"{line.paper:g}"
    if line.ours == NOT_MEASURED:
        return paper, NOT_MEASURED
    return paper, _escape(spell_interval(line.ours, line.ours_low, line.ours_high, digits)).replace(
        "±", r"$\pm$"
    )


def _escape(text: str) -> str:
    return "".join(f"\\{letter}" if letter in "&%$#_{}" else letter for letter in text)
