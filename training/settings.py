"""A recipe with what a command line changes of it.

change(recipe("dense-tiles"), ["warmup=10", "d_model=64"], {"batch": 4})

Light to import: no torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, get_type_hints

from framelens.records.assignments import convert, parse_assignments
from framelens.training.recipes import Recipe


def change(
    base: Recipe,
    pairs: Sequence[str],
    given: Mapping[str, Any],
    architecture: Mapping[str, Any] | None = None,
    more: Mapping[str, Any] | None = None,
) -> Recipe:
    """The recipe with NAME=VALUE pairs and the values of options, None for those that are not given.

    A name that no setting has is one of the network's; `architecture` and `more` are changes that the pairs
    replace. ValueError for a value that cannot be, and for a pair that has an option of its own.
    """
    asked, kinds = parse_assignments(pairs), get_type_hints(Recipe)
    for name in asked.keys() & given.keys():
        raise ValueError(f"--set does not take {name}, which has an option: give --{name} {asked[name]}")
    changes, sizes = dict(more or {}), base.architecture | dict(architecture or {})
    for name, value in asked.items():
        if name in kinds:
            changes[name] = convert(name, value, kinds[name])
        else:
            sizes[name] = value
    changes |= {name: value for name, value in given.items() if value is not None}
    return replace(base, **{"architecture": sizes} | changes)
