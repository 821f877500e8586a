"""A run's paper folder: every figure and table of the paper that we can draw, and contents.md about them.

write_paper(run, run.folder / "paper", benches=[...], comparisons=[...])
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from framelens.records import replace_file, write_text
from framelens.records.damage import NotShown, name_damage
from framelens.reports.drawing import style
from framelens.reports.paper import attention, leave_one_out, similarity, training
from framelens.reports.paper.published import ORIGIN, TABLES
from framelens.reports.paper.tables import NOT_MEASURED, Ours, fill, latex, scores, table_for, times
from framelens.reports.plots import pca
from framelens.reports.runs import Run

STRIPS = "principal components show layout and motion from the first step on; no values"
Line = tuple[str, str, str, str]
"""Of contents.md: the paper's number, the file, what the paper shows, and ours or why there is none."""


def write_paper(run: Run, folder: Path, benches: Sequence[Run], comparisons: Sequence[Run]) -> list[Path]:
    """Writes the folder; returns its files, contents.md last, which also names what was not measured."""
    ours = _collect(benches, comparisons)
    written, lines = [], []
    for files, line in [*_figures(run, folder, list(comparisons)), *_tables(folder, ours, run)]:
        written += files
        lines.append(line)
    rows = ["| paper | file | published | ours |", "|---|---|---|---|"]
    rows += [f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines]
    text = "\n".join(
        [f"# The paper's figures and tables, from {run.model}, run {run.name}", "", ORIGIN, "", *rows, ""]
    )
    return [*written, write_text(folder / "contents.md", text)]


def _collect(benches: Sequence[Run], comparisons: Sequence[Run]) -> dict[str, dict]:
    """Our values by table; the runs are checked before anything is written."""
    ours: dict[str, dict] = {number: {} for number in TABLES}
    for runs, kind, read in ((benches, "bench", times), (comparisons, "compare", scores)):
        for run in runs:
            if run.kind != kind:
                raise ValueError(f"{run.folder} is a run of kind {run.kind!r}, and --{kind} takes {kind!r}")
            values: Ours = read(run)
            ours[table_for(run)] |= values
    return ours


def _figures(run: Run, folder: Path, comparisons: list[Run]) -> Iterator[tuple[list[Path], Line]]:
    """The figures, in the order of the paper."""
    for module in (similarity, attention, leave_one_out):
        yield _draw(module.number or "§4.1", module.name, module.published, module, run, folder)
        if module is similarity:
            yield _draw("§4.1", "pca", STRIPS, pca, run, folder)
        if module is attention:
            if comparisons:
                figure, table = training.draw(comparisons)
                files = style.save(figure, table, folder / training.name, comparisons[0].manifest.command)
                yield files, (training.number, files[1].name, training.published, training.words(table))
            else:
                why = f"{NOT_MEASURED}: name a comparison of trainings with --compare"
                yield [], (training.number, "", training.published, why)


def _draw(number: str, name: str, shows: str, module, run: Run, folder: Path) -> tuple[list[Path], Line]:
    missing = run.missing(module.needs)
    try:
        if missing:
            raise NotShown(f"{NOT_MEASURED}: {', '.join(missing)}")
        with name_damage(f"what figure {name} shows, in {run.files(module.needs)},", run.remedy):
            figure, table = module.draw(run)
            sentence = module.words(table)
    except NotShown as reason:
        return [], (number, "", shows, str(reason))
    files = style.save(figure, table, folder / name, run.manifest.command)
    return files, (number, files[1].name, shows, sentence)


def _tables(folder: Path, ours: dict[str, dict], run: Run) -> Iterator[tuple[list[Path], Line]]:
    for number, about in TABLES.items():
        table = fill(number, ours[number])
        path = folder / f"table{number}"
        files = [
            replace_file(path.with_suffix(".csv"), _writer(table)),
            write_text(path.with_suffix(".tex"), latex(number, table)),
        ]
        measured = table[table["ours"] != NOT_MEASURED]
        said = f"{len(measured)} of {len(table)} values" if len(measured) else NOT_MEASURED
        others = sorted(set(measured["ours_is"]))
        said += f": {'; '.join(others)}. Other data and smaller networks: compare ratios" if others else ""
        yield files, (f"Table {number}", files[1].name, about.about, said)


def _writer(table: pd.DataFrame):
    return lambda partial: table.to_csv(partial, index=False)
