"""framelens split: a plan is acted on, every sampler is scored on the same clips, and the run is drawn."""

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from framelens.records.plan import Plan
from framelens.reports.__main__ import main as draw
from framelens.reports.plots import split_trade
from framelens.reports.runs import open_run
from framelens.training.split import fine_tune, main, parser

ROOT = Path(__file__).parents[1]
PLAN = ROOT / "reports/gallery/dense-tiles-plan.json"
SMALL = ["--plan", str(PLAN), "--clips", "1", "--rounds", "1", "--steps", "1", "--few-steps", "1"]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run whose fine-tune and distillation have one step each."""
    folder = tmp_path_factory.mktemp("runs") / "split" / "dense-tiles"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("framelens.training.samplers.STEPS", 2)
        patch.setattr("framelens.training.samplers.FEWER", (1,))
        patch.setattr("framelens.training.state.TrainingFolder._write_sample", lambda folder, run: None)
        patch.setattr("framelens.training.trainer.measure_validation_loss", lambda *_: {0.5: 1.0})
        patch.setattr("framelens.training.distil.VALIDATION_CLIPS", 1)
        assert main([*SMALL, "--control", "--dense-few", "--out", str(folder)]) == 0
    return folder


def test_every_sampler_is_scored_on_the_same_clips(folder):
    found = xr.load_dataset(folder / "split.nc", engine="netcdf4")
    assert [str(arm).rpartition(", ")[0] for arm in found.arm.values] == [
        "dense", "fetched once", "fetched once, planned cut", "separated, not trained",
        "separated, fine-tuned", "dense, trained on", "dense", "separated, distilled", "dense, distilled",
    ]  # fmt: skip
    assert found.evaluations.values.tolist() == [2, 2, 2, 2, 2, 2, 1, 1, 1]
    assert np.isfinite(found.psnr).all() and (found.seconds > 0).all() and (found.memory_error > 0).all()
    assert found.attrs["command"].startswith("framelens split --plan")


def test_a_split_run_is_drawn_with_the_differences_from_dense(folder, tmp_path):
    assert draw(["--run", str(folder), "--out", str(tmp_path)]) == 0
    assert "What separating dense-tiles buys" in (folder / "page.html").read_text(encoding="utf-8")
    table = split_trade.tabulate(open_run(folder).read("split"))
    dense = table[table["sampler"] == "dense, 2 steps"]
    assert (dense["difference mean"] == 0).all() and (dense["time"] == 1).all()
    assert "separated, distilled, 1 step: " in split_trade.words(table)


def test_what_is_trained_already_is_taken(folder, tmp_path, monkeypatch):
    files = {
        name: folder / name / "model.safetensors" for name in ("separated", "few", "control", "dense-few")
    }
    measured = {}
    monkeypatch.setattr("framelens.training.split._train", lambda *_: pytest.fail("trained again"))
    monkeypatch.setattr(
        "framelens.training.trade.measure_trade", lambda arms, *_: measured.update(arms) or xr.Dataset()
    )
    trained = [f"--{name}={file}" for name, file in files.items()]
    assert main([*SMALL, *trained, "--out", str(tmp_path / "again")]) == 0
    assert measured["separated, fine-tuned, 20 steps"].model.source.file == files["separated"]
    assert measured["separated, distilled, 4 steps"].model.source.file == files["few"]
    assert measured["dense, distilled, 1 step"].model.source.file == files["dense-few"]
    control = measured["dense, trained on, 20 steps"].model
    assert control.source.file == files["control"] and type(control).__name__ == "Dense"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": None, "verdict": "not separable"}, "has no split to act on"),
        ({"model": {"name": "dense-digits"}}, "is of dense-digits, not of dense-tiles"),
        (None, "plan.json"),
    ],
)
def test_a_plan_that_cannot_be_acted_on_is_one_line(tmp_path, capsys, changes, message):
    path = tmp_path / "plan.json"
    if changes is not None:
        values = json.loads(PLAN.read_text())
        for name, value in changes.items():
            values[name] = values[name] | value if isinstance(value, dict) else value
        path.write_text(json.dumps(values))
    assert main(["--plan", str(path), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not (tmp_path / "out").exists()


def test_the_fine_tune_may_train_adapters():
    options = parser().parse_args([*SMALL, "--lora", "4"])
    tuning = fine_tune(Plan.read(PLAN), "tiles", options)
    assert tuning.lora_rank == 4 and tuning.initial == "dense-tiles"
