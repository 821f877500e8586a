"""What the model of an adapter declares, each of the right kind; sizes are for `make check` to compare."""

import inspect
from collections.abc import Mapping
from dataclasses import asdict

from torch import nn

from framelens.diffusion.contract import PROMISES, CausalDiffuser, Geometry, lacking, traits
from framelens.hooks.attention import AttentionPoint

GUIDE = "see models/README.md"


def refuse_undeclared(model: object, name: str) -> None:
    """ValueError, in one line, for what `name` made where something is missing or of another kind."""
    for part in PROMISES:
        member = inspect.getattr_static(type(model), part, None)
        if isinstance(member, property) and member.fget:
            try:
                member.fget(model)  # through getattr, torch would hide the error of the property
            except Exception as error:
                raise ValueError(f"{name} gave a {_kind(model)}, whose {part} raises: {error}") from error
    missing = lacking(model)
    if not isinstance(model, nn.Module) or not isinstance(model, CausalDiffuser):
        what = f"lacks {', '.join(missing)}" if missing else "is not a torch.nn.Module"
        raise ValueError(f"{name} gave a {_kind(model)}, which {what}; {GUIDE}")
    wrong = next((line for check in (_geometry, _methods, _points) if (line := check(model))), None)
    if wrong:
        raise ValueError(f"{name} gave a model whose {wrong}; {GUIDE}")
    try:
        traits(model)
    except ValueError as error:
        raise ValueError(f"{name} gave {error}; {GUIDE}") from error


def _geometry(model: CausalDiffuser) -> str | None:
    geometry: object = model.geometry
    if not isinstance(geometry, Geometry):
        return f"geometry is a {_kind(geometry)}, expected a Geometry (diffusion.contract)"
    for field, value in asdict(geometry).items():
        if not isinstance(value, int) or value < 1:
            return f"geometry.{field} is {value!r}, expected a whole number from 1"
    if geometry.height % geometry.patch or geometry.width % geometry.patch:
        size = f"{geometry.height} x {geometry.width}"
        return f"geometry says that {size} frames do not divide into patches of {geometry.patch}"
    return None


def _methods(model: CausalDiffuser) -> str | None:
    parts = {"start": model.start, "encode": model.encode, "denoise": model.denoise}
    wrong = [(part, found) for part, found in parts.items() if not callable(found)]
    return f"{wrong[0][0]} is a {_kind(wrong[0][1])}, expected a method" if wrong else None


def _points(model: CausalDiffuser) -> str | None:
    for part, found, kind, expected in (
        ("hook_dict", model.hook_dict, nn.Module, "a module"),
        ("attn_dict", model.attn_dict, AttentionPoint, "an AttentionPoint(module, key_age)"),
    ):
        if not isinstance(found, Mapping) or not found:
            what = "empty" if isinstance(found, Mapping) else f"a {_kind(found)}"
            return f"{part} is {what}, expected names to {expected.split()[1]}s"
        for name, value in found.items():
            if not isinstance(value, kind):
                return f"{part}[{name!r}] is a {_kind(value)}, expected {expected}"
    return None


def _kind(value: object) -> str:
    return type(value).__name__
