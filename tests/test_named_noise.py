"""Noise has names: two experiments share none, and the seeds of all names differ."""

import ast
import itertools
from pathlib import Path

from framelens.probes.run.noise import renoise_seed_of, seed_of
from framelens.probes.run.settings import Settings

PROBES = Path(__file__).parents[1] / "probes"
TAKES_NAME = {"noise": 0, "renoise_seed": 0, "seed_of": 2, "renoise_seed_of": 2}
"""Functions that take the name of a noise, and which of their arguments it is."""
PASS_ON = {"run/noise.py", "run/probed_clip.py"}
"""Files that pass the name on that they were given."""


def names_in(file):
    """The names of noise that a file of probes/ gives, and arguments that are not a known text."""
    tree = ast.parse(file.read_text())
    known = {
        node.targets[0].id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        if isinstance(node.targets[0], ast.Name)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if called in TAKES_NAME and len(node.args) > TAKES_NAME[called]:
            given = node.args[TAKES_NAME[called]]
            if isinstance(given, ast.Constant):
                yield given.value
            elif isinstance(given, ast.Name) and given.id in known:
                yield known[given.id]
            else:
                yield None


def names_by_file():
    files = {file.relative_to(PROBES).as_posix(): set(names_in(file)) for file in PROBES.rglob("*.py")}
    assert all(None not in names for file, names in files.items() if file not in PASS_ON)
    return {file: names - {None} for file, names in files.items() if names - {None}}


def test_no_two_files_give_noise_the_same_name():
    by_file = names_by_file()
    names = list(itertools.chain.from_iterable(by_file.values()))
    assert len(names) == len(set(names)) >= 7
    assert {"rollouts", "readout", "noise_invariance", "chunk_probe", "known_state"} <= set(names)


def test_the_seeds_of_all_names_clips_and_numbers_differ():
    names = itertools.chain.from_iterable(names_by_file().values())
    places = list(itertools.product(range(3), range(40), names, range(4)))
    seeds = [
        seed(Settings(seed=run, renoise=True), clip, name, number)
        for run, clip, name, number in places
        for seed in (seed_of, renoise_seed_of)
    ]
    assert len(set(seeds)) == 2 * len(places) and all(0 <= seed < 2**63 for seed in seeds)


def test_nothing_is_added_between_steps_unless_the_settings_say_so():
    assert renoise_seed_of(Settings(), 0, "rollouts") is None
