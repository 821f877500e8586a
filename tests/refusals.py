"""What a command says of bad input: one line, exit status 2, and nothing else."""

import re


def assert_refused(main, words, stated, capsys, out=None):
    """The command ends with status 2 and one line that matches `stated`; `out`, if given, is not written."""
    assert main([*words, *(["--out", str(out)] if out else [])]) == 2
    printed = capsys.readouterr()
    assert re.search(stated, printed.err) and printed.err.count("\n") == 1 and not printed.out
    assert out is None or not out.exists()
