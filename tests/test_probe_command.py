"""`framelens probe`: a model's mistakes and wrong options are one line with the remedy."""

import re
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch

from framelens import models
from framelens.__main__ import main as framelens_main
from framelens.probes.__main__ import _say_what_was_rounded, main
from framelens.probes.run import failures, work
from framelens.probes.run.folder import RunFolder, manifest
from framelens.probes.run.options import parser, settings_of
from framelens.probes.run.settings import Settings
from framelens.records.identity import describe_differences

ROOT = Path(__file__).parents[1]
SMALL = "--clips 1 --steps 2 --frames 5 --context 3 --probed 1 --workers 1 --run trial".split()
SMALL += "--experiments rollouts --statistics block_norms".split()
CLASS = (
    "from dataclasses import replace\nfrom framelens.models.adapter_template import Adapter, Net\n\n\n"
    "class Mine(Adapter):\n{body}\n\n\ndef load(seed=0):\n    return Mine(Net())\n"
)
DENOISE = "    def denoise(self, x, sigma, context):\n        "
BROKEN = {
    "raises": (DENOISE + "return sigma.nothing", "AttributeError.* mine.py:7: .*'nothing'"),
    "refuses": (DENOISE + "raise ValueError('no such size')", "ValueError.* mine.py:7: no such size"),
    "crops": (DENOISE + "return super().denoise(x, sigma, context)[..., 1:]", r"\w+Error: "),
    "silent": (
        "    hook_dict = property(lambda self: Adapter.hook_dict.fget(self) | "
        "{'blocks.1.hook_resid_post': self.net.embed.__class__(1, 1)})",
        "SilentHookError: 'blocks.1.hook_resid_post'",
    ),
}


@pytest.fixture
def probed(tmp_path, monkeypatch, capsys):
    """Probes with that adapter's class; gives the status and the lines on stderr without the progress bar."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def run(body, *arguments):
        (tmp_path / "mine.py").write_text(CLASS.format(body=body))
        status = main(["--model", f"{tmp_path}/mine.py:load", "--out", str(tmp_path), *SMALL, *arguments])
        lines = capsys.readouterr().err.replace("\r", "\n").splitlines()
        return status, [line for line in lines if line and "%|" not in line]

    return run


@pytest.mark.parametrize("kind", BROKEN)
def test_a_model_that_breaks_its_contract_ends_in_one_line(probed, tmp_path, kind):
    body, found = BROKEN[kind]
    status, (line,) = probed(body, "--set", "seed=1")
    name = f"{tmp_path}/mine.py:load"
    assert status == 2 and re.match(f"framelens probe: {name}: {found}", line)
    assert f"make check MODEL={name} ARGS='--set seed=1'" in line
    trace = Path(re.search(r"(/[^ ]+?)\W*$", line)[1]).read_text()
    assert trace.startswith("Traceback") and re.search("^(\\w+\\.)*\\w+Error: ", trace, re.MULTILINE)


def test_a_broken_model_is_one_line_from_a_worker_too(tmp_path, monkeypatch):
    """What a worker raises is all that it hands on."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    network = models.load("models/adapter_template.py:load")
    name, settings = "models/adapter_template.py:load", Settings(clips=1, steps=2)
    session = work.Session({"trained": network, "random": network}, [], settings, 5)
    described = manifest("a command", network, "adapter_template", settings, 5, name)
    monkeypatch.setattr(work, "_worker", [session, name, RunFolder(tmp_path, described, False), None])
    with pytest.raises(ValueError, match="adapter_template.py:load: IndexError: list index .*make check"):
        work._work(0)


def test_our_own_mistakes_are_not_put_down_to_a_shipped_model():
    with pytest.raises(TypeError, match="ours"), failures.in_one_line("dense-tiles", Settings()):
        raise TypeError("ours")


def test_what_says_itself_what_to_do_is_left_as_it_is():
    with (
        pytest.raises(ValueError, match="^--clips .*1.* 0$"),
        failures.in_one_line("models/adapter_template.py:load", Settings()),
    ):
        Settings(clips=0)
    memory = torch.OutOfMemoryError  # pyright: ignore[reportPrivateImportUsage]
    with pytest.raises(memory), failures.in_one_line("models/adapter_template.py:load", Settings()):
        raise memory("")


@pytest.mark.parametrize("run", ["../x", "a/b", "..", ".", "", "/x", "a\\b"])
def test_the_name_of_a_run_does_not_lead_out_of_the_models_folder(tmp_path, capsys, run):
    assert main(["--out", str(tmp_path / "runs" / "here"), "--run", run]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("framelens probe: --run") and repr(run) in line
    assert not list(tmp_path.iterdir())


def test_guidance_of_own_samples_is_refused_before_there_is_a_folder(tmp_path, capsys):
    checkpoint = tiny.checkpoint(tmp_path / "models" / "tiny.safetensors")
    for videos, why in (
        ("own", r"--guidance 3\.0 .*actions"),
        (f"own:{tmp_path}/none.safetensors", "none.safetensors"),
    ):
        asked = ["--videos", videos, "--guidance", "3", "--out", str(tmp_path / "runs")]
        assert main(["--model", str(checkpoint), *SMALL, *asked]) == 2
        assert re.search(why, capsys.readouterr().err)
    assert not (tmp_path / "runs").exists()


# Options


def asked_for(*arguments):
    options = vars(parser().parse_args([*arguments]))
    for name in ("model", "run", "out", "workers"):
        options.pop(name)
    return settings_of(options)


def rounded(capsys, *arguments, frames=12):
    """The messages on the command line's counts to a model of three frames at a time."""
    settings, unasked = asked_for(*arguments)
    network = tiny.model()
    network.geometry = replace(network.geometry, frames_per_chunk=3)
    session = work.Session({"trained": network}, [], replace(settings, context=3), frames)
    _say_what_was_rounded(settings, session, unasked)
    return capsys.readouterr().err.splitlines()


def test_only_counts_that_were_asked_for_are_said_to_be_rounded(capsys):
    assert rounded(capsys) == rounded(capsys, "--quick") == rounded(capsys, "--probed", "3") == []
    (line,) = rounded(capsys, "--context", "4")
    assert re.search(r"^framelens probe: .*\b3 .*--context 4 .*\b3$", line)
    (line,) = rounded(capsys, "--probed", "40")
    assert re.search(r"^framelens probe: .*\b3 .*\b3 .*--probed 40 .*\b3$", line)


def test_defaults_are_those_of_the_settings_and_of_a_quick_run():
    assert asked_for()[0] == Settings()
    assert asked_for("--quick")[0] == Settings(quick=True, steps=10, probed=2)
    settings, unasked = asked_for("--quick", "--probed", "7", "--context", "2")
    assert (settings.probed, settings.context, settings.steps) == (7, 2, 10)
    assert set(unasked) == {"steps", "shift", "renoise"}


@pytest.mark.parametrize("command", ["probe", "estimate", "plan"])
def test_every_command_shows_its_own_options(command, capsys):
    with pytest.raises(SystemExit) as stop:
        framelens_main([command, "--help"])
    shown = capsys.readouterr().out
    assert stop.value.code == 0 and shown.startswith(f"usage: framelens {command} ")
    assert ("--preset" in shown) == (command == "estimate") and ("--history" in shown) == (command == "plan")


# Another run in the folder


def test_only_what_differs_is_named_and_long_values_are_shortened():
    was = {"name": "a", "sha256": "0" * 64, "geometry": {"layers": 12, "heads": 4}, "old": None}
    wanted = {"name": "a", "sha256": "1" * 64, "geometry": {"layers": 6, "heads": 4}}
    shortened = [rf"{digit * 16}\.\.\.{digit * 16}" for digit in "01"]
    found = rf"^sha256 {'.* '.join(shortened)}; geometry\.layers 12\b.* 6; old None\b[^;]*$"
    assert re.search(found, describe_differences(was, wanted))
    many = {str(index): index for index in range(6)}
    assert re.search(r"; 3 3\b.* 9 .*\b2\b[^;]*$", describe_differences(many, dict.fromkeys(many, 9)))
    assert re.search(r"\[1.0, 0.0\].*\[1.0, 0.5, 0.0\]", describe_differences([1.0, 0.0], [1.0, 0.5, 0.0]))


# Loading


@pytest.mark.parametrize(("behind", "got"), [("", ""), ("load()", "'load()'"), ("a.b", "'a.b'")])
def test_an_adapters_function_is_named(behind, got):
    with pytest.raises(ValueError) as error:
        models.find(f"mine.py:{behind}")
    assert re.search(rf"mine\.py:load.*{re.escape(got)}", str(error.value))


def test_a_network_of_nobodys_is_sent_to_the_guide(tmp_path):
    torch.save({"layer.weight": torch.zeros(2)}, tmp_path / "mine.pt")
    with pytest.raises(ValueError, match="'layer.weight'.*models/README.md"):
        models.load(str(tmp_path / "mine.pt"))
