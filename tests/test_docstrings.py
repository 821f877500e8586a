"""Every name of the public interface has a docstring whose example runs and gives what it says."""

import doctest
from pathlib import Path

import pytest

import framelens


@pytest.mark.parametrize("name", framelens.__all__)
def test_the_example_of_a_public_name_runs(name, monkeypatch, capsys):
    monkeypatch.chdir(Path(__file__).parents[1])
    finder = doctest.DocTestFinder(recurse=False)
    (example,) = finder.find(getattr(framelens, name), name, globs={})
    assert example.examples, "a docstring without an example"
    assert doctest.DocTestRunner().run(example).failed == 0, capsys.readouterr().out
