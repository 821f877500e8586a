"""What every instrument shares: the names it watches, its clock, and the law of firing.

An instrument is attached by `with`, all of it or nothing, and gone afterwards.
The sampler announces each forward pass through `on_pass` before it happens, and
the instrument counts how often each point fires in it.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn


class SilentHookError(RuntimeError):
    """A hook point did not fire once per announced pass, or would not if it were attached."""


def matching(names: Iterable[str], patterns: str | Iterable[str]) -> list[str]:
    """The names that match at least one glob, in their own order; ValueError for a glob without a match."""
    names = list(names)
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    if not patterns:
        raise ValueError(f"no pattern given; choose from {names}")
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ValueError(f"no hook point matches {pattern!r}; there are {names}")
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]


class Instrument:
    """Attaches to the matching points on entry and detaches on exit, whatever happens in between.

    `on_pass(at)` sets the moment that sinks are told; `at.role` and `at.branch` name
    the kind of pass. After a body that ended normally, a point that never fired, or that did
    not fire once in every announced pass of each kind in which it fired, raises
    SilentHookError. Without announced passes nothing is counted and `at` is None.
    """

    remedy = (
        "a model compiled or captured in a CUDA graph ignores hooks attached later: run it uncompiled, or "
        "build it of hook points with is_guarded = True; and announce every forward pass by on_pass"
    )

    def __init__(self, points: Mapping[str, nn.Module], patterns: str | Iterable[str]):
        self.points = {name: points[name] for name in matching(points, patterns)}
        self._listed = points
        self.at = None
        self.announced: Counter = Counter()
        self.fired: dict[str, Counter] = {}
        self._attached: ExitStack | None = None  # undoes the attaching; None while detached

    def on_pass(self, at: Any) -> None:
        """Take note that the forward pass `at` is about to run."""
        self.at = at
        self.announced[_kind(at)] += 1

    def __enter__(self) -> "Instrument":
        if self._attached is not None:
            raise RuntimeError(f"this {type(self).__name__} is attached already; make a second one")
        self.at = None
        self.announced.clear()
        self.fired = {name: Counter() for name in self.points}
        with ExitStack() as stack:
            for name, module in self.points.items():
                self._refuse_compiled(name, module)
                self._attach(name, module, stack)
            self._attached = stack.pop_all()
        return self

    def __exit__(self, kind, error, traceback) -> None:
        if self._attached is not None:
            self._attached.close()
            self._attached = None
        if kind is None:
            self._check_firings()

    def _attach(self, name: str, module: nn.Module, stack: ExitStack) -> None:
        raise NotImplementedError

    def _notices_hooks(self, module: nn.Module) -> bool:
        return getattr(module, "is_guarded", False)

    def _count(self, name: str) -> None:
        self.fired[name][_kind(self.at)] += 1

    def _refuse_compiled(self, name: str, module: nn.Module) -> None:
        owner = _compiled_part(self._listed, name)
        if owner is not None and not self._notices_hooks(module):
            raise SilentHookError(
                f"{name!r} belongs to {owner}, which was compiled and would not notice the hook; "
                f"use the uncompiled model, or a hook point with is_guarded = True"
            )

    def _check_firings(self) -> None:
        faults = {name: fault for name in self.points if (fault := self._fault(name))}
        if faults:
            name = next(iter(faults))
            others = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
            raise SilentHookError(
                f"{name!r}{others} fired {faults[name]}, expected once in each; {self.remedy}"
            )

    def _fault(self, name: str) -> str | None:
        counts = {role: self.fired[name][role] for role in self.announced}
        if counts and not any(counts.values()):
            return f"never in {self.announced.total()} announced passes"
        for role, passes in self.announced.items():
            if counts[role] not in (0, passes):
                return f"{counts[role]} times in {passes} announced passes of role {role!r}"
        return None


def outside_graphs(hook: Callable) -> Callable:
    """The hook as a call that torch.compile does not look into: what it reads changes with every pass."""
    # Importing dynamo costs seconds, and without it nothing has been compiled.
    return torch.compiler.disable(hook) if "torch._dynamo" in sys.modules else hook


def _kind(at: Any) -> str | None:
    """What kind of pass it is: its role, and its branch where that is not the conditional one."""
    role, branch = getattr(at, "role", None), getattr(at, "branch", "cond")
    return role if role is None or branch == "cond" else f"{role} {branch}"


def _compiled_part(points: Mapping[str, nn.Module], name: str) -> str | None:
    """What compiled module encloses the point, as far as its name and the listed points show."""
    parts = name.split(".")
    if "_orig_mod" in parts:
        return "a module wrapped by torch.compile"
    for end in range(len(parts) + 1):
        prefix = ".".join(parts[:end])
        module = points.get(prefix)
        # A point that is itself a torch.compile wrapper runs its hooks outside the graph.
        is_wrapper = module is not None and "_orig_mod" in module._modules and prefix != name
        if is_wrapper or getattr(module, "_compiled_call_impl", None) is not None:
            return repr(prefix) if prefix else "the model"
    return None
