"""framelens compare of trainings: curves equal the logs and the scores, and unlike trainings are refused."""

import json

import fake_training
import pandas as pd
import pytest

from framelens.records.trainings import LOG, SCORES, name_checkpoint
from framelens.reports import compare
from framelens.reports.comparison import training_curves
from framelens.reports.comparison.trainings import read_trainings

PSNR, MEMORY = (score for score, _ in training_curves.SCORES.values())


@pytest.fixture
def folders(tmp_path):
    """Two trainings of one world; the second has one validation more."""
    one, two = tmp_path / "a", tmp_path / "b"
    return [fake_training.write(one), fake_training.write(two, (0, 20, 40), network="scd", seed=1)]


def write_scores(training, settings=(), memory=True, **recipe):
    """A file of scores; the PSNR of a checkpoint is its step, and the error 1 over 1 + step."""
    models, measures = {}, {}
    for step in (0, 20):
        scores = {PSNR: 10.0 + step, training_curves.COPIED: 12.0} | (
            {MEMORY: 1 / (1 + step)} if memory else {}
        )
        name = f"step-{step:06d}"
        models[name] = {"training": {"recipe": fake_training.RECIPE | recipe, "step": step}}
        measures[name] = {
            score: {"mean": mean, "low": 0.9 * mean, "high": 1.1 * mean, "clips": 8}
            for score, mean in scores.items()
        }
    chosen = {"clips": 8, "videos": None, "frames": None} | dict(settings)
    held = {"kind": "evaluate", "settings": chosen, "models": models, "measures": measures}
    (training / SCORES).write_text(json.dumps(held))


def run(*folders):
    return compare.main([*map(str, folders), "--out", str(folders[0].parent / "out")])


def refusal(capsys, *folders):
    assert run(*folders) == 2
    error = capsys.readouterr().err
    assert error.startswith("framelens compare: ") and error.count("\n") == 1
    assert not (folders[0].parent / "out").exists()
    return error


def rows(table, panel, training):
    return table[(table["panel"] == panel) & (table["training"] == training)]


def test_the_curve_of_a_log_is_the_log(folders):
    trainings = read_trainings(folders)
    table = training_curves.tabulate(trainings)
    for folder in folders:
        log = pd.read_csv(folder / LOG)
        for panel, column in {
            "validation loss": "loss",
            "validation loss, sigma 0.95": "loss_sigma_0.95",
            "validation loss, sigma 0.05": "loss_sigma_0.05",
        }.items():
            drawn = rows(table, panel, folder.name)
            assert drawn["step"].tolist() == log["step"].tolist()
            assert drawn["mean"].tolist() == log[column].tolist()
    assert table["panel"].nunique() == 1 + training_curves.MOST_SIGMAS


def test_the_curve_of_the_scores_is_the_file_of_scores(folders):
    write_scores(folders[0])
    trainings = read_trainings(folders)
    figure, table = training_curves.draw(trainings)
    memory = rows(table, "memory error", "a")
    assert memory["step"].tolist() == [0, 20] and memory["mean"].tolist() == [1, 1 / 21]
    assert rows(table, "next frame", "a")["high"].tolist() == pytest.approx([11, 33])
    assert rows(table, "next frame", "b").empty, "b has no scores"
    assert rows(table, "next frame", training_curves.COPY)["mean"].tolist() == [12]
    assert len(figure.axes) == 6 and len({axes.get_xlim() for axes in figure.axes}) == 1
    assert "next frame 30.00 [27.00, 33.00] dB at step 20" in training_curves.words(trainings, table)


def test_a_world_without_memory_has_no_panel_of_it(folders):
    write_scores(folders[0], memory=False)
    figure, table = training_curves.draw(read_trainings(folders[:1]))
    assert "memory error" not in set(table["panel"]) and len(figure.axes) == 5


@pytest.mark.slow
def test_the_command_writes_page_figure_and_numbers(folders, capsys):
    write_scores(folders[0])
    assert run(*folders) == 0
    out = folders[0].parent / "out"
    assert capsys.readouterr().out.strip() == str(out / "page.html")
    assert {file.suffix for file in out.iterdir()} == {".html", ".png", ".pdf", ".csv"}
    held = pd.read_csv(out / "training-curves.csv")
    assert len(held) == len(training_curves.tabulate(read_trainings(folders)))
    page = (out / "page.html").read_text()
    assert f"framelens evaluate --checkpoints {folders[1]}</code>" in page
    assert f"framelens evaluate --checkpoints {folders[0]}</code>" not in page
    assert "<td>network</td><td>dense</td><td>scd</td>" in page and "<td>videos</td>" not in page


def test_a_loss_of_zero_stands_in_the_numbers_and_all_panels_begin_at_the_first_step(tmp_path):
    training = fake_training.write(tmp_path / "a", (0, 20, 40))
    log = pd.read_csv(training / LOG)
    log.loc[0, "loss_sigma_0.05"] = 0.0
    log.to_csv(training / LOG, index=False)
    figure, table = training_curves.draw(read_trainings([training]))
    assert rows(table, "validation loss, sigma 0.05", "a")["mean"].iloc[0] == 0
    assert all(axes.get_xlim()[0] <= 0 and axes.get_xlim()[1] >= 40 for axes in figure.axes)


def test_one_training_that_has_just_begun_is_drawn(tmp_path):
    training = fake_training.write(tmp_path / "a", steps=(0,))
    _, table = training_curves.draw(read_trainings([training]))
    assert table["step"].unique().tolist() == [0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"videos": "digits"}, "with videos digits, not tiles"),
        ({"frames": 4}, "with frames 4, not 3"),
        (
            {"sigmas": (0.9, 0.6, 0.4, 0.05)},
            "with noise levels of the validation 0.9, 0.6, 0.4, 0.05, not 0.95",
        ),
        ({"teacher": "dense-tiles", "levels": 20}, "with teacher dense-tiles, not None; levels 20, not None"),
    ],
)
def test_trainings_that_were_validated_otherwise_are_refused(folders, changes, message, capsys):
    other = fake_training.write(folders[0].parent / "other", **changes)
    assert f"{other} was trained and validated {message}" in refusal(capsys, folders[0], other)


def test_scores_of_other_clips_or_of_another_training_are_refused(folders, capsys):
    write_scores(folders[0])
    write_scores(folders[1], {"clips": 4}, network="scd", seed=1)
    assert "was scored with clips 4" in refusal(capsys, *folders)
    write_scores(folders[1])
    assert "has scores of another training" in refusal(capsys, *folders)


def test_what_is_no_training_or_damaged_is_named(folders, tmp_path, capsys):
    one, two = folders
    assert "is given twice" in refusal(capsys, one, one / ".." / "a")
    assert f"{tmp_path / 'run'} is not a training" in refusal(capsys, one, tmp_path / "run")
    (two / LOG).write_text("step,loss\n")
    assert "has no row yet" in refusal(capsys, two)
    (two / LOG).write_text("a,b\n1,2\n")
    assert f"{two / LOG} cannot be read" in refusal(capsys, two)
    for step in (0, 20):
        name_checkpoint(one, step).write_bytes(b"x")
    assert "is not the result of a training" in refusal(capsys, one)
