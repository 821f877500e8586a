"""The checks of a model's contract, one after the other.

for check in examine(model):
    check.name, check.holds, check.found
assert not failures(model)
"""

from collections.abc import Callable, Collection, Iterator
from typing import Any

import torch

from framelens.diffusion.contract import CausalDiffuser
from framelens.models.loading.model_errors import RAISED, error_line
from framelens.probes.check.attention import key_age, patterns
from framelens.probes.check.checked_model import Check, CheckedModel
from framelens.probes.check.convention import convention, known_clips
from framelens.probes.check.edits import edits, skips
from framelens.probes.check.geometry import geometry
from framelens.probes.check.instruments import fires, names, outputs
from framelens.probes.check.layers import layers
from framelens.probes.check.past import conditions, context, copies, frames, parallel, rows, velocity

CHECKS: tuple[Callable[[CheckedModel], Check], ...] = (
    velocity, names, fires, geometry, outputs, edits, skips, patterns, key_age, context,
    rows, frames, conditions, parallel, layers, copies, convention,
)  # fmt: skip
"""In this order, one mistake explains the failures that follow it."""
CLIPS = 2
"""Random clips that the model gets."""
REMEDY = "no check can run before a pass succeeds: correct the line that raised this error"


def examine(
    model: CausalDiffuser,
    only: Collection[str] | None = None,
    chunks: int = 3,
    steps: int = 2,
    seed: int = 0,
    all_layers: bool = False,
    videos: str | None = None,
) -> Iterator[Check]:
    """The results of all checks, or of those named in `only`, each as soon as it is known.

    The model gets two random clips of that many chunks, and that many denoising steps. Of a network with
    many layers the first, middle and last are edited, unless `all_layers`. `videos` are clips like those that
    it was trained on, for `convention`; by default those that the model names.
    """
    checked = CheckedModel(model, chunks, steps, seed, all_layers, videos)
    if videos is not None:
        known_clips(checked)  # what cannot be read is refused before the first check
    raised: dict[str, str] = {}
    for check in CHECKS:
        if only is None or check.__name__ in only:
            yield _run(check, checked, raised)


def failures(model: CausalDiffuser, **options: Any) -> list[Check]:
    """The checks that do not hold, with the options of `examine`."""
    return [check for check in examine(model, **options) if check.holds is False]


def _run(check: Callable[[CheckedModel], Check], checked: CheckedModel, raised: dict[str, str]) -> Check:
    """The check's result. A check that raises an error of the model does not hold.

    `raised` keeps, for each error, the name of the first check that it stopped; later checks refer to it.
    """
    try:
        checked.first  # noqa: B018, a first pass before any instrument is attached
        return check(checked)
    except torch.OutOfMemoryError:  # pyright: ignore[reportPrivateImportUsage]
        raise
    except RAISED as error:
        claim, found = (check.__doc__ or "").splitlines()[0].rstrip("."), error_line(error)
        cause = raised.setdefault(found, check.__name__)
        if cause != check.__name__:
            return Check(check.__name__, claim, f"the same error as in {cause}", False, f"see {cause}")
        return Check(check.__name__, claim, found, False, REMEDY)
