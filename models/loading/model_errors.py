"""An error that a model's own code raised, in one line: what, and where in that code.

error_line(error)         # "RuntimeError at my_adapter.py:12: shapes cannot be multiplied"
"""

import re
import sysconfig
from pathlib import Path
from typing import Literal

RAISED = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What a model that is not as it should be may raise."""
ROOT, STANDARD = Path(__file__).resolve().parents[2], Path(sysconfig.get_paths()["stdlib"])
"""The folder of the package framelens, and that of the standard library."""


def error_line(error: BaseException) -> str:
    """The error's type, where in the model's own code it was raised, and its first line."""
    first = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}{place(error)}: {first}"


def place(error: BaseException) -> str:
    """The last line of the model's own code that the error passed through, as ` at file:line`: the user's
    where there is such code, else of models/; nothing where it passed only around the model."""
    passed = _passed(error)
    own = [at for whose, at in passed if whose == "user"] or [at for whose, at in passed if whose == "models"]
    return own[-1] if own else ""


def is_of_model(error: BaseException) -> bool:
    """Whether it was raised by the model's own code, or by a library that this called."""
    passed = _passed(error)
    return bool(passed) and passed[-1][0] != "around"


def _owner(file: Path) -> Literal["around", "models", "user"] | None:
    """Whose code a file is: what runs and watches models, our models, or the user's; None for a library."""
    if ROOT / "tests" not in file.parents and ROOT in file.parents and (ROOT / ".venv") not in file.parents:
        return "models" if ROOT / "models" in file.parents else "around"
    library = STANDARD in file.parents or re.search("site-packages|dist-packages|<", str(file))
    return None if library else "user"


def _passed(error: BaseException) -> list[tuple[Literal["around", "models", "user"], str]]:
    """Whose code the error passed through and where, from the outside in, libraries left out."""
    passed, trace = [], error.__traceback__
    while trace is not None:
        file = Path(trace.tb_frame.f_code.co_filename)
        whose = _owner(file)
        if whose is not None:
            passed.append((whose, f" at {file.name}:{trace.tb_lineno}"))
        trace = trace.tb_next
    return passed
