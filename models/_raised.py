"""An error that a model's own code raised, in one line: what, and where in that code.

error_line(error)         # "RuntimeError at my_adapter.py:12: shapes cannot be multiplied"
"""

import re
import sysconfig
from pathlib import Path

RAISED = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What a model that is not as it should be may raise."""
ROOT, STANDARD = Path(__file__).parents[1], Path(sysconfig.get_paths()["stdlib"])
AROUND = tuple(ROOT / name for name in ("analyses", "diffusion", "hooks", "probes", "videos"))


def error_line(error: BaseException) -> str:
    """The error's type, where in the model's own code it was raised, and its first line."""
    first = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}{place(error)}: {first}"


def place(error: BaseException) -> str:
    """The last line of the model's own code that the error passed through, as ` at file:line`: the user's
    where there is such code, else of models/; nothing where it passed only around the model."""
    theirs, ours, trace = "", "", error.__traceback__
    while trace is not None:
        file = Path(trace.tb_frame.f_code.co_filename)
        at = f" at {file.name}:{trace.tb_lineno}"
        if file.parent == ROOT / "models":
            ours = at
        elif not _is_around(file):
            theirs = at
        trace = trace.tb_next
    return theirs or ours


def _is_around(file: Path) -> bool:
    """Whether it runs models, or belongs to a library."""
    is_library = re.search("site-packages|dist-packages|<", str(file)) or STANDARD in file.parents
    return bool(is_library) or file.parent in AROUND
