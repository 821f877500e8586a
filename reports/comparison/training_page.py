"""The page of compared trainings: how far each is, their curves, and the settings that differ.

write(read_trainings(folders), Path("runs/comparisons/a--b"))     # -> .../page.html and the figure beside it
"""

from collections.abc import Sequence
from pathlib import Path

from framelens.records import write_text
from framelens.reports.comparison import training_curves
from framelens.reports.comparison.compared import find_differing
from framelens.reports.comparison.page import show_differences
from framelens.reports.comparison.trainings import LoggedTraining
from framelens.reports.drawing import style
from framelens.reports.page.figure import PageFigure, figure_section
from framelens.reports.page.markup import Html, fill, join, table
from framelens.reports.page.page import document

HEADS = [
    "training",
    "network",
    "step",
    "of steps",
    "hours",
    "validation loss",
    "scored checkpoints",
    "folder",
]


def write(trainings: Sequence[LoggedTraining], out: Path) -> Path:
    """Writes the figure and page.html into the folder, and returns the page's path."""
    figure, numbers = training_curves.draw(trainings)
    png, *_ = style.save(figure, numbers, out / training_curves.name)
    about = training_curves.name, training_curves.title, training_curves.caption
    drawn = PageFigure(*about, training_curves.words(trainings, numbers), png)
    names = [training.name for training in trainings]
    parts = [
        fill("<h1>{}</h1>", " and ".join(names)),
        figure_section(drawn),
        *_name_commands(trainings),
        fill('<h2 id="trainings">The trainings</h2>'),
        table(HEADS, map(_describe, trainings), "numbers"),
        fill('<h2 id="settings">Settings that differ</h2>'),
        show_differences(names, find_differing([training.recipe for training in trainings])),
    ]
    return write_text(out / "page.html", document("Trainings: " + ", ".join(names), parts))


def _describe(training: LoggedTraining) -> list[object]:
    last = training.log.iloc[-1]
    return [
        training.name,
        training.recipe.get("network"),
        f"{training.step:,}",
        f"{training.recipe['steps']:,}",
        f"{last['seconds'] / 3600:.2f}",
        f"{last['loss']:.4f}",
        len(training.scores),
        training.folder,
    ]


def _name_commands(trainings: Sequence[LoggedTraining]) -> list[Html]:
    """How to get the scores of trainings that have none."""
    lacking = [training for training in trainings if not training.scores]
    if not lacking:
        return []
    items = join(
        fill("<li><code>framelens evaluate --checkpoints {}</code></li>", training.folder)
        for training in lacking
    )
    return [
        fill("<h2>Not scored</h2>\n<p>These commands score the kept checkpoints:</p>\n<ul>\n{}\n</ul>", items)
    ]
