"""Files that are read again: what is not whole, of another kind or of another version is one line."""

import json
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import fake_interventions
import fake_manifest
import pytest

from framelens.records import typed
from framelens.records.manifest import BenchManifest, CompareManifest, Manifest, ProbeManifest
from framelens.records.plan import Plan

GALLERY = Path(__file__).parents[1] / "reports" / "gallery"


@pytest.fixture
def plan():
    return fake_interventions.plan({"layer": 6, "clip": 5})


def test_a_plan_is_read_as_it_was_written(plan, tmp_path):
    path = plan.write(tmp_path / "plan.json")
    assert Plan.read(path) == plan
    stored = json.loads(path.read_text())
    assert (stored["kind"], stored["format"]) == ("plan", typed.FORMAT)


def test_a_plan_cannot_be_changed(plan):
    with pytest.raises(FrozenInstanceError):
        plan.verdict = "open"


@pytest.mark.parametrize("shipped", sorted(GALLERY.glob("*-plan.json")), ids=lambda path: path.name)
def test_shipped_plans_open(shipped):
    plan = Plan.read(shipped)
    assert bool(plan.architecture) == (plan.verdict != "open")


def changed(values, path, value):
    """The same with another value at a path, or without it for None."""
    *above, last = path
    place = values
    for name in above:
        place = place[name]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return values


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (["format"], 0, "format 0, expected 1"),
        (["format"], None, "format None, expected 1"),
        (["kind"], "bench", "is not a plan but a file of kind 'bench'"),
        (["verdict"], None, "it has no verdict"),
        (["model", "layers"], None, "it has no model.layers"),
        (["model", "layers"], "six", "model.layers must be a whole number, got 'six'"),
        (["tests", 0, "passed"], 2, "tests[0].passed must be true or false or null, got 2"),
        (["split", "head", 0], 0.5, "split.head[0] must be a whole number, got 0.5"),
        (["prediction"], [], "prediction must be a mapping"),
        (["sigma"], {}, "it has an unknown sigma"),
    ],
)
def test_what_is_not_a_whole_plan_is_one_line_with_the_command(plan, tmp_path, path, value, said):
    file = replace(plan, command="framelens plan --steps 4").write(tmp_path / "plan.json")
    file.write_text(json.dumps(changed(json.loads(file.read_text()), path, value)))
    with pytest.raises(ValueError) as error:
        Plan.read(file)
    line = str(error.value)
    assert line.startswith(str(file)) and said in line and "\n" not in line
    assert "framelens plan --" in line


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "\x00"])
def test_what_is_not_json_or_no_mapping_is_one_line(tmp_path, text):
    file = tmp_path / "plan.json"
    file.write_text(text)
    with pytest.raises(ValueError, match="plan.json .*: framelens plan"):
        Plan.read(file)
    with pytest.raises(FileNotFoundError, match=r"found no plan at .*other.json; make one: framelens"):
        Plan.read(tmp_path / "other.json")


# Manifests


def shipped(pattern):
    return sorted(GALLERY.glob(pattern))


@pytest.mark.parametrize(
    ("kind", "paths"),
    [
        (ProbeManifest, shipped("dense-*-manifest.json")),
        (BenchManifest, shipped("bench-*-manifest.json")),
        (CompareManifest, shipped("compare/*/manifest.json")),
    ],
)
def test_shipped_manifests_open_as_what_they_are(kind, paths):
    assert paths
    for path in paths:
        found = Manifest.read(path)
        assert isinstance(found, kind) and found == kind.read(path) and found.complete


def test_a_manifest_is_read_as_it_was_written(tmp_path):
    for path in (*shipped("*-manifest.json"), *shipped("compare/*/manifest.json")):
        found = Manifest.read(path)
        assert Manifest.read(found.write(tmp_path / path.name)) == found


def test_a_manifest_of_another_kind_is_refused():
    (bench,) = shipped("bench-*-manifest.json")
    with pytest.raises(ValueError, match="is not a probe but a file of kind 'bench'; make one: framelens"):
        ProbeManifest.read(bench)
    with pytest.raises(ValueError, match="is not a manifest but of kind 'plan'"):
        Manifest.read(shipped("*-plan.json")[0])


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (["format"], None, "format None, expected 1"),
        (["kind"], None, "not a manifest of this version"),
        (["loaded_from"], None, "it has no loaded_from"),
        (["model", "sha256"], None, "it has no model.sha256"),
        (["settings", "guidance"], None, "it has no settings.guidance"),
        (["model", "geometry", "frames_per_chunk"], None, "it has no model.geometry.frames_per_chunk"),
        (["sigmas", 0], "one", "sigmas[0] must be a number, got 'one'"),
        (["complete"], "yes", "complete must be true or false, got 'yes'"),
    ],
)
def test_what_is_not_a_whole_manifest_is_one_line_with_the_command(tmp_path, path, value, said):
    geometry = {"frames_per_chunk": 1, "tokens_per_frame": 4, "layers": 2}
    file = tmp_path / "manifest.json"
    file.write_text(json.dumps(changed(fake_manifest.probe({"geometry": geometry}, {}), path, value)))
    with pytest.raises(ValueError) as error:
        Manifest.read(file)
    line = str(error.value)
    assert line.startswith(str(file)) and said in line and "\n" not in line
    assert line.endswith("make it again: framelens probe --model fake <b>")
