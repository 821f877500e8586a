"""What every instrument shares: the names it watches, the current pass, and the count of calls.

An instrument is attached by `with`: to all of its points or to none, and to none afterwards. The sampler
announces each forward pass through `on_pass` before it runs. Each watched module must be called exactly once
in a pass, so the instrument counts the calls.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from fnmatch import fnmatchcase
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Value = TypeVar("Value")
Attached = TypeVar("Attached", bound="Instrument")


class SilentHookError(RuntimeError):
    """A hook point did not fire once per announced pass, or would not if it were attached."""


def match_names(names: Iterable[str], patterns: str | Iterable[str]) -> list[str]:
    """The names that match at least one glob, in their own order; ValueError for a glob without a match."""
    names = list(names)
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    if not patterns:
        raise ValueError(f"no pattern given; choose from {names}")
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ValueError(f"no hook point matches {pattern!r}; there are {names}")
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]


def assign_by_pattern(names: Iterable[str], by_pattern: Mapping[str, Value]) -> dict[str, Value]:
    """The value of the one glob that matches each name; ValueError where two globs match the same name."""
    assigned = {}
    for name in names:
        matching = [pattern for pattern in by_pattern if fnmatchcase(name, pattern)]
        if len(matching) > 1:
            raise ValueError(
                f"{name!r} matches {' and '.join(map(repr, matching))}; give one pattern for each name, or "
                f"nest two instruments to apply both in order"
            )
        assigned[name] = by_pattern[matching[0]]
    return assigned


class Instrument:
    """Attaches to the matching points on entry and detaches on exit, whatever happens in between.

    `on_pass(at)` sets the moment that is passed to callbacks; `at.role` and `at.branch` name the kind of
    pass. A `with` block that ends normally raises SilentHookError for a point that never fired, or that did
    not fire exactly once in each announced pass of a kind in which it fired. Without announced passes nothing
    is counted and `at` is None.
    """

    remedy = (
        "a model compiled or captured in a CUDA graph ignores hooks attached later: run it uncompiled, or "
        "build it of hook points with is_guarded = True; and announce every forward pass by on_pass"
    )

    def __init__(self, points: Mapping[str, nn.Module], patterns: str | Iterable[str]):
        self.points = {name: points[name] for name in match_names(points, patterns)}
        self._listed = points
        self.at = None
        self.announced: Counter = Counter()
        self.fired: dict[str, Counter] = {}
        self._attached: ExitStack | None = None  # detaches on close; None while detached

    def on_pass(self, at: Any) -> None:
        """Take note that the forward pass `at` is about to run."""
        self.at = at
        self.announced[_kind_of_pass(at)] += 1

    def __enter__(self: Attached) -> Attached:
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

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> bool | None:
        if self._attached is not None:
            self._attached.close()
            self._attached = None
        if kind is None:
            self._check_counts()

    def _attach(self, name: str, module: nn.Module, stack: ExitStack) -> None:
        raise NotImplementedError

    def _notices_hooks(self, module: nn.Module) -> bool:
        return getattr(module, "is_guarded", False)

    def _count(self, name: str) -> None:
        self.fired[name][_kind_of_pass(self.at)] += 1

    def _refuse_compiled(self, name: str, module: nn.Module) -> None:
        owner = _find_compiled_owner(self._listed, name)
        if owner is not None and not self._notices_hooks(module):
            raise SilentHookError(
                f"{name!r} belongs to {owner}, which was compiled and would not notice the hook; "
                f"use the uncompiled model, or a hook point with is_guarded = True"
            )

    def _check_counts(self) -> None:
        faults = {name: fault for name in self.points if (fault := self._find_fault(name))}
        if faults:
            name = next(iter(faults))
            others = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
            raise SilentHookError(
                f"{name!r}{others} fired {faults[name]}, expected once in each; {self.remedy}"
            )

    def _find_fault(self, name: str) -> str | None:
        counts = {role: self.fired[name][role] for role in self.announced}
        if counts and not any(counts.values()):
            return f"never in {self.announced.total()} announced passes"
        for role, passes in self.announced.items():
            if counts[role] not in (0, passes):
                return f"{counts[role]} times in {passes} announced passes of role {role!r}"
        return None


def exclude_from_graphs(hook: Callable) -> Callable:
    """The hook as a call that torch.compile does not trace: what the hook reads changes with every pass."""
    # Importing dynamo takes seconds, and without it nothing has been compiled.
    return torch.compiler.disable(hook) if "torch._dynamo" in sys.modules else hook


def require_same_form(name: str, old: Tensor, new: Any) -> Tensor:
    """The new value, if it is a tensor of the old one's shape and dtype; else ValueError."""
    got = (tuple(new.shape), new.dtype) if isinstance(new, Tensor) else type(new).__name__
    expected = (tuple(old.shape), old.dtype)
    if got != expected:
        raise ValueError(f"the edit at {name!r} returned {got}, expected {expected}: return such a tensor")
    return new


def _kind_of_pass(at: Any) -> str | None:
    """The role of the pass, with its branch where that is not the conditional one."""
    role, branch = getattr(at, "role", None), getattr(at, "branch", "cond")
    return role if role is None or branch == "cond" else f"{role} {branch}"


def _find_compiled_owner(points: Mapping[str, nn.Module], name: str) -> str | None:
    """The compiled module that contains the point, as far as its name and the listed points show."""
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
