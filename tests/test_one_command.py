"""One command with one grammar: subcommands, --config, -q, -v, completion; runs are found by name or path."""

import json
import os
import shutil
import subprocess
import sys
from importlib import import_module

import fake_manifest
import pytest

from framelens import completion
from framelens.__main__ import MODULES, find_command, help_text, main
from framelens.probes.run.options import parser
from framelens.records import write_json
from framelens.records.commands import command_line, read_options
from framelens.records.notes import VERBOSITY, print_note
from framelens.records.runs import find_run, known_runs, spell_settings
from framelens.reports import listing

GEOMETRY = {"frames_per_chunk": 1, "tokens_per_frame": 4, "layers": 2}


@pytest.fixture(autouse=True)
def usual_verbosity(monkeypatch):
    monkeypatch.setenv(VERBOSITY, "0")


def test_the_help_names_every_command_and_the_version_is_printed(capsys):
    assert main([]) == main(["--help"]) == 0
    assert capsys.readouterr().out == f"{help_text()}\n" * 2
    assert all(f"  {name} " in help_text() for name in MODULES)
    assert main(["--version"]) == 0 and capsys.readouterr().out.startswith("framelens 0.")


@pytest.mark.parametrize("name", MODULES)
def test_help_begins_with_at_most_ten_options_and_the_others_are_in_named_groups(name):
    groups = import_module(f"framelens.{MODULES[name]}").parser()._action_groups
    options = {
        group.title: sum(bool(each.option_strings) for each in group._group_actions) for group in groups
    }
    assert options["options"] <= 10 and None not in options


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["plann"], "try plan"),
        (["bench", "x"], "or bench sampler or bench training or bench gpu"),
        (["zzz"], "there are check"),
    ],
)
def test_an_unknown_command_gets_one_line_with_the_nearest(words, hint, capsys):
    assert main(words) == 2
    error = capsys.readouterr().err
    assert hint in error and error.count("\n") == 1 and error.startswith("framelens: ")


def test_commands_of_two_words_are_found():
    assert find_command(["bench", "scd", "--help"]) == "bench scd"


def test_a_command_ends_with_the_status_of_its_own(capsys):
    assert main(["runs", "no-such-run"]) == 2
    assert capsys.readouterr().err.startswith("framelens runs: found no run 'no-such-run'")


def options_of(*arguments):
    return vars(read_options(parser(), arguments))


def test_a_toml_file_gives_options_and_the_command_line_replaces_them(tmp_path):
    file = tmp_path / "my.toml"
    file.write_text(
        'model = "dense-digits"\nclips = 3\nquick = true\nrenoise = false\nexperiments = ["cut", "skip"]\n'
        '[set]\nheight = 4\nname = "x"\n'
    )
    found = options_of("--config", str(file), "--clips", "5")
    same = options_of(
        "--model", "dense-digits", "--clips", "5", "--quick", "--no-renoise", "--experiments", "cut", "skip",
        "--set", "height=4", "name=x",
    )  # fmt: skip
    assert found == same


def test_the_command_in_a_manifest_is_a_configuration(tmp_path):
    arguments = ["--model", "a b.py:load", "--clips", "3", "--set", "height=4"]
    file = tmp_path / "manifest.json"
    file.write_text(json.dumps({"command": command_line("probe", arguments)}))
    assert options_of(f"--config={file}") == options_of(*arguments)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.toml", "clipz = 3", "found no option 'clipz'; did you mean clips?"),
        ("a.toml", "clips = ", "cannot be read as toml"),
        ("a.toml", 'config = "a.toml"', "no option 'config'"),
        ("a.json", "{", "cannot be read as json"),
        ("a.json", "[]", "stores no command"),
        ("a.toml", b"\xff", "cannot be read as toml"),
    ],
)
def test_a_configuration_that_cannot_be_used_names_the_file(tmp_path, name, text, message):
    file = tmp_path / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=message) as refused:
        options_of("--config", str(file))
    assert str(file) in str(refused.value)


def test_a_quiet_command_prints_no_notes(capsys):
    options_of("--quiet")
    print_note("a note of the quiet test")
    assert capsys.readouterr().err == "" and os.environ[VERBOSITY] == "-1"
    options_of("-v")
    assert os.environ[VERBOSITY] == "1"
    print_note("a note of the verbose test")
    assert "verbose test" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_the_completion_is_a_script_that_bash_reads_and_completes_options(tmp_path, capsys):
    assert completion.main(["bash"]) == 0
    script = tmp_path / "framelens.bash"
    script.write_text(capsys.readouterr().out)
    program = f"source {script}; declare -F _shtab_framelens; declare -p | grep -c statistics"
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("_shtab_framelens")


@pytest.mark.slow
def test_help_answers_soon_after_python_starts():
    program = "import sys; from framelens.__main__ import main; main(['--help']); print(len(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(done.stdout.splitlines()[-1]) < 400, "the help imports too much"


@pytest.fixture
def runs(tmp_path):
    for name in ("a/first", "a/second", "b/first", "b/other"):
        manifest = fake_manifest.probe({"name": name.split("/")[0], "geometry": GEOMETRY}, {})
        write_json(tmp_path / "runs" / name / "manifest.json", manifest)
    return tmp_path / "runs"


def test_a_run_is_found_by_path_by_model_and_name_and_by_a_name_of_its_own(runs):
    assert find_run(runs / "a" / "first", runs) == runs / "a" / "first"
    assert find_run("a/first", runs) == runs / "a" / "first"
    assert find_run("other", runs) == runs / "b" / "other"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("first", "2 runs; give one of a/first, b/first"),
        ("a", "2 runs; give one of a/first, a/second"),
        ("c", "no run 'c' under .*; there are a/first, a/second, b/first, b/other"),
    ],
)
def test_a_name_that_no_single_run_has_lists_the_runs(runs, text, message):
    with pytest.raises(ValueError, match=message):
        find_run(text, runs)


def test_runs_are_listed_with_settings_that_were_given(runs, capsys):
    assert [run.name for run in known_runs(runs)] == ["a/first", "a/second", "b/first", "b/other"]
    assert listing.main(["--out", str(runs)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5 and lines[0].split() == list(listing.HEADS)
    assert spell_settings("framelens probe --model x --clips 4 --out o --quick") == "--clips 4 --quick"


def test_a_damaged_manifest_is_named_and_the_others_are_listed(runs, capsys):
    (runs / "a" / "first" / "manifest.json").write_text("{")
    assert listing.main(["--out", str(runs)]) == 0
    out, error = capsys.readouterr()
    assert len(out.splitlines()) == 4 and str(runs / "a" / "first") in error


def test_runs_are_exported_as_csv(runs, tmp_path):
    assert listing.main(["--out", str(runs), "a/first", "--export", str(tmp_path / "x" / "runs.csv")]) == 0
    head, row = (tmp_path / "x" / "runs.csv").read_text().splitlines()
    assert len(head.split(",")) == len(row.split(",")) == 9 and row.startswith(str(runs / "a" / "first"))


def test_runs_are_deleted_after_a_yes_only(runs, monkeypatch, capsys):
    import io

    monkeypatch.setattr(sys, "stdin", io.StringIO("no\n"))
    assert listing.main(["--out", str(runs), "--delete", "a/first"]) == 2 and (runs / "a" / "first").exists()
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert listing.main(["--out", str(runs), "--delete", "a/first"]) == 0
    assert listing.main(["--out", str(runs), "--delete", "a/second", "--yes"]) == 0
    assert sorted(run.name for run in known_runs(runs)) == ["b/first", "b/other"]
    assert listing.main(["--out", str(runs), "--delete"]) == 2
