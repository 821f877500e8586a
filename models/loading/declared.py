"""What the model of an adapter declares, each of the right kind; sizes are for `make check` to compare."""

import inspect
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from torch import nn

from framelens.diffusion.sampler import Geometry
from framelens.diffusion.schedule import Sampling
from framelens.hooks.attention import AttentionPoint

CONTRACT = ("geometry", "start", "encode", "denoise", "hook_dict", "attn_dict")
TAKES = (None, "actions", "labels", "text")


def refuse_undeclared(model: Any, name: str) -> None:
    """ValueError, in one line, for what `name` made where something is missing or of another kind."""
    for part in CONTRACT:
        member = inspect.getattr_static(type(model), part, None)
        if isinstance(member, property) and member.fget:
            try:
                member.fget(model)  # through getattr, torch would hide the error of the property
            except Exception as error:
                raise ValueError(f"{name} gave a {_kind(model)}, whose {part} raises: {error}") from error
    lacking = [part for part in CONTRACT if not hasattr(model, part)]
    if not isinstance(model, nn.Module) or lacking:
        what = f"lacks {', '.join(lacking)}" if lacking else "is not a torch.nn.Module"
        raise ValueError(f"{name} gave a {_kind(model)}, which {what}; see models/README.md")
    wrong = next((line for check in (_geometry, _methods, _points, _rest) if (line := check(model))), None)
    if wrong:
        raise ValueError(f"{name} gave a model whose {wrong}; see models/README.md")


def _geometry(model: Any) -> str | None:
    geometry = model.geometry
    if not isinstance(geometry, Geometry):
        return f"geometry is a {_kind(geometry)}, expected a Geometry (diffusion.sampler)"
    for field, value in asdict(geometry).items():
        if not isinstance(value, int) or value < 1:
            return f"geometry.{field} is {value!r}, expected a whole number from 1"
    if geometry.height % geometry.patch or geometry.width % geometry.patch:
        size = f"{geometry.height} x {geometry.width}"
        return f"geometry says that {size} frames do not divide into patches of {geometry.patch}"
    return None


def _methods(model: Any) -> str | None:
    for part in ("start", "encode", "denoise"):
        if not callable(getattr(model, part)):
            return f"{part} is a {_kind(getattr(model, part))}, expected a method"
    return None


def _points(model: Any) -> str | None:
    for part, kind, expected in (
        ("hook_dict", nn.Module, "a module"),
        ("attn_dict", AttentionPoint, "an AttentionPoint(module, key_age)"),
    ):
        found = getattr(model, part)
        if not isinstance(found, Mapping) or not found:
            what = "empty" if isinstance(found, Mapping) else f"a {_kind(found)}"
            return f"{part} is {what}, expected names to {expected.split()[1]}s"
        for name, value in found.items():
            if not isinstance(value, kind):
                return f"{part}[{name!r}] is a {_kind(value)}, expected {expected}"
    return None


def _rest(model: Any) -> str | None:
    takes, sampling = getattr(model, "takes", None), getattr(model, "sampling", None)
    if takes not in TAKES:
        return f"takes is {takes!r}, expected {', '.join(map(repr, TAKES[:-1]))} or {TAKES[-1]!r}"
    if sampling is not None and not isinstance(sampling, Sampling):
        return f"sampling is a {_kind(sampling)}, expected a Sampling (diffusion.schedule)"
    metadata = getattr(model, "metadata", {})
    if not isinstance(metadata, Mapping):
        return f"metadata is a {_kind(metadata)}, expected a dict"
    return None


def _kind(value: Any) -> str:
    return type(value).__name__
