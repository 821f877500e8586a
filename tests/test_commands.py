"""A command ends with an exit status, and with one line on stderr where it could not do what was asked."""

import pytest

from framelens.records.commands import exits_as


def ended(error, **options):
    @exits_as("draw", **options)
    def main(arguments: list[str] | None = None) -> int:
        """Draws."""
        if error is not None:
            raise error
        return 1

    return main


def test_a_command_that_ends_by_itself_keeps_its_status_and_its_name(capsys):
    assert ended(None)(["--run", "all"]) == 1
    assert capsys.readouterr() == ("", "")
    assert (ended(None).__name__, ended(None).__doc__) == ("main", "Draws.")


@pytest.mark.parametrize("error", [ValueError("no such run"), FileNotFoundError("no such run")])
def test_what_cannot_be_done_is_said_in_one_line(capsys, error):
    assert ended(error)() == 2
    assert capsys.readouterr() == ("", "framelens draw: no such run\n")


@pytest.mark.parametrize("options", [{}, {"stopped": "the same command goes on"}])
def test_a_stopped_command_says_so_and_what_then(capsys, options):
    assert ended(KeyboardInterrupt(), **options)() == 130
    out, err = capsys.readouterr()
    assert not out and err.startswith("framelens draw: ") and err.endswith(f"{options.get('stopped', '')}\n")
    assert err.count("\n") == 1


def test_our_own_mistakes_are_not_hidden():
    with pytest.raises(TypeError):
        ended(TypeError("2 positional arguments"))()
