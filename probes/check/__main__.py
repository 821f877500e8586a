"""python -m framelens.probes.check --model dense-tiles: does a model keep the contract of every number?

    for check in examine(model):            # in Python; failures(model) is a list that should be empty
        check.name, check.holds, check.found

Random frames of the model's own size are enough: nothing is said of how good it is.
"""

import argparse
import sys
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

from framelens.models.loading.model_errors import RAISED, error_line
from framelens.records.assignments import parse_assignments
from framelens.records.commands import exits_as

if TYPE_CHECKING:  # it imports torch, which --help does without
    import framelens.diffusion.contract

CHECKS = (
    "velocity", "names", "fires", "geometry", "watched", "edits", "skips", "patterns", "key_age", "context",
    "rows", "frames", "conditions", "parallel", "copies",
)  # fmt: skip
"""In the order in which one mistake explains the next; each is a function of a file _checks_*.py."""


def examine(
    model: "framelens.diffusion.contract.CausalDiffuser",
    only: Collection[str] | None = None,
    chunks: int = 3,
    steps: int = 2,
    seed: int = 0,
    all_layers: bool = False,
) -> Iterator[Any]:
    """Every check of the model, or `only` those, as they are done (probes/_checks_specimen.Check)."""
    from framelens.probes.check import attention, geometry, instruments, past

    specimen = specimen_of(model, chunks=chunks, steps=steps, seed=seed, all_layers=all_layers)
    homes = (instruments, geometry, attention, past)
    raised: dict[str, str] = {}
    for name in CHECKS:
        if only is None or name in only:
            (home,) = (home for home in homes if hasattr(home, name))
            yield _examined(getattr(home, name), specimen, raised)


def specimen_of(model: "framelens.diffusion.contract.CausalDiffuser", **options: Any) -> Any:
    """The model with random clips and conditions of its own kind, and walks through them."""
    from framelens.probes.check.specimen import Specimen

    return Specimen(model, **options)


def failures(model: "framelens.diffusion.contract.CausalDiffuser", **options: Any) -> list[Any]:
    """The checks that do not hold."""
    return [check for check in examine(model, **options) if check.holds is False]


def _examined(check: Any, specimen: Any, raised: dict[str, str]) -> Any:
    """The check's result; one that does not hold where it could not be carried out.

    `raised` notes by error the first check that it stopped, to which the others refer.
    """
    import torch

    from framelens.probes.check.specimen import Check

    try:
        specimen.first  # noqa: B018, tried out before an instrument listens
        return check(specimen)
    except torch.OutOfMemoryError:  # pyright: ignore[reportPrivateImportUsage]
        raise
    except RAISED as error:
        claim, found = (check.__doc__ or "").splitlines()[0].rstrip("."), error_line(error)
        cause = raised.setdefault(found, check.__name__)
        if cause != check.__name__:
            return Check(check.__name__, claim, f"the same error as in {cause}", False, f"see {cause}")
        return Check(check.__name__, claim, found, False, _MENDING)


_MENDING = "a pass must be possible before more can be said: mend the line that raised this"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m framelens.probes.check",
        description="Checks a model against the contract that every number rests on, one line for each "
        "promise: what was found, and where it does not hold, what to do (models/README.md). Random frames "
        "of the model's own size are enough: nothing is said of how good it is.",
        epilog="Exit status: 0 where every check holds, 1 where one does not, 2 without a model.",
    )
    parser.add_argument(
        "--model", required=True, help="a shipped model, a checkpoint, a hub id or adapter.py:function"
    )
    parser.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="what the checkpoint does not say, for example height=60 width=104 window=6",
    )
    parser.add_argument("--chunks", type=int, default=3, help="chunks of the random clips (default: 3)")
    parser.add_argument("--steps", type=int, default=2, help="denoising steps (default: 2)")
    parser.add_argument("--seed", type=int, default=0, help="decides the random clips")
    parser.add_argument(
        "--all-layers", action="store_true", help="edit the points of every layer of a deep network"
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--dtype", default="float32", help="float32, bfloat16 or float16")
    return parser


@exits_as("check")
def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 where every check holds, 1 where one does not, 2 when the request cannot be met."""
    options = parser().parse_args(arguments)
    asked = parse_assignments(options.set)
    from framelens import models

    models.find(options.model)  # before the heavy imports: a misspelt name answers at once

    import torch

    model = models.load(options.model, options.device, options.dtype, **asked)
    verdicts = []
    try:
        for check in examine(model, None, options.chunks, options.steps, options.seed, options.all_layers):
            print(check.line, flush=True)
            verdicts.append(check.holds)
    except torch.OutOfMemoryError:  # pyright: ignore[reportPrivateImportUsage]
        raise OSError(
            f"{options.device} has not enough memory for 2 clips of {options.chunks} chunks; try --dtype "
            "bfloat16, or --set with a smaller height and width"
        ) from None
    examined = [verdict for verdict in verdicts if verdict is not None]
    print(f"{sum(examined)} of {len(examined)} checks hold for {options.model}")
    return 0 if all(examined) else 1


if __name__ == "__main__":
    sys.exit(main())
