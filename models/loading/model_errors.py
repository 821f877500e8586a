"""Describes an error of a model's own code in one line: what it is, and where in that code it was raised.

error_line(error)         # "RuntimeError at my_adapter.py:12: shapes cannot be multiplied"
"""

import re
import sysconfig
from pathlib import Path
from typing import Literal

RAISED = (
    ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, SystemExit, TypeError,
    ValueError,
)  # fmt: skip
"""Errors that a faulty model may raise. One of sys.exit would end the command as if it had succeeded."""
ROOT, STANDARD = Path(__file__).resolve().parents[2], Path(sysconfig.get_paths()["stdlib"])
"""The folder of the package framelens, and that of the standard library."""


def error_line(error: BaseException) -> str:
    """The type of the error, the line of the model's own code where it was raised, and its first line."""
    first = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}{place(error)}: {first}"


def place(error: BaseException) -> str:
    """The last line of the model's own code that the error passed through, as ` at file:line`.

    It is code of the user if there is any, else of models/. Empty if no code of the model is involved.
    """
    owners = _list_owners(error)
    own = [at for whose, at in owners if whose == "user"] or [at for whose, at in owners if whose == "models"]
    return own[-1] if own else ""


def is_of_model(error: BaseException) -> bool:
    """Whether the model's own code raised it, or a library that this code called."""
    owners = _list_owners(error)
    return bool(owners) and owners[-1][0] != "around"


def owner_of(file: Path) -> Literal["around", "models", "user"] | None:
    """The owner of a file: code that runs and watches models, our models, or the user; None for a library."""
    if ROOT / "tests" not in file.parents and ROOT in file.parents and (ROOT / ".venv") not in file.parents:
        return "models" if ROOT / "models" in file.parents else "around"
    library = STANDARD in file.parents or re.search("site-packages|dist-packages|<", str(file))
    return None if library else "user"


def _list_owners(error: BaseException) -> list[tuple[Literal["around", "models", "user"], str]]:
    """The owners of the code that the error passed through, and where, outermost first, without libraries."""
    owners, trace = [], error.__traceback__
    while trace is not None:
        file = Path(trace.tb_frame.f_code.co_filename)
        whose = owner_of(file)
        if whose is not None:
            owners.append((whose, f" at {file.name}:{trace.tb_lineno}"))
        trace = trace.tb_next
    return owners
