"""Trace: pass every value at the watched hook points to a function, with its moment and its name.

    norms = []
    with Trace(model.hook_dict, ["hook_embed", "blocks.*.hook_resid_post"],
               lambda at, name, value: norms.append((at.step, name, value.norm()))) as trace:
        rollout(model, noise, sigmas, on_pass=trace.on_pass)

    with Trace(model.hook_dict, "blocks.3.hook_resid_post", keep, stop=True):
        model.denoise(x, sigma, context)                     # blocks 4, 5, ... do not run

Statistics read such a stream of values; nothing is collected here.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn

from framelens.hooks._instrument import Instrument, exclude_from_graphs


class Trace(Instrument):
    """Calls `sink(at, name, value)` each time a point whose name matches a glob fires.

    `at` is the announced pass (None without one), `name` a key of `points`, `value` that point's output,
    detached but not copied: a sink that keeps it must clone it. The network's output is bit for bit what it
    is without the Trace. A glob without a match raises ValueError; a point that does not fire in announced
    passes raises SilentHookError when the `with` block ends.

    With `stop`, the `with` block ends as soon as every watched point has fired in one pass: the rest of the
    forward pass, and of the block, does not run. No other exception is hidden.

    >>> import framelens
    >>> import torch
    >>> network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU())
    >>> shapes = {}
    >>> def keep(at, name, value):
    ...     shapes[name] = value.shape
    >>> with framelens.Trace({"first": network[0]}, "*", keep):
    ...     output = network(torch.ones(2, 3))
    >>> shapes
    {'first': torch.Size([2, 4])}
    """

    def __init__(
        self,
        points: Mapping[str, nn.Module],
        patterns: str | Iterable[str],
        sink: Callable[[Any, str, Tensor], None],
        stop: bool = False,
    ):
        super().__init__(points, patterns)
        self.sink, self.stop = sink, stop
        self._waiting: set[str] = set()  # points that have not fired in the current pass

    def on_pass(self, at: Any) -> None:
        """Take note that the forward pass `at` is about to run."""
        super().on_pass(at)
        self._waiting = set(self.points)

    def __enter__(self) -> "Trace":
        self._waiting = set(self.points)
        return super().__enter__()

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> bool | None:
        if isinstance(error, _StopForward) and error.trace is self:
            super().__exit__(None, None, None)
            return True
        return super().__exit__(kind, error, traceback)

    def _attach(self, name: str, module: nn.Module, stack: ExitStack) -> None:
        def pass_on(_module, _inputs, output):
            self._count(name)
            self.sink(self.at, name, require_tensor(name, output).detach())
            self._waiting.discard(name)
            if self.stop and not self._waiting:
                raise _StopForward(self)

        stack.callback(module.register_forward_hook(exclude_from_graphs(pass_on)).remove)


class _StopForward(Exception):
    """Ends the forward pass in which the last point of a Trace has fired."""

    def __init__(self, trace: Trace):
        super().__init__(
            "a Trace with stop=True ended this forward pass; run the pass inside its `with` block"
        )
        self.trace = trace


def require_tensor(name: str, output: Any) -> Tensor:
    """The output of a hook point, which is one tensor; ValueError if it is anything else."""
    if not isinstance(output, Tensor):
        raise ValueError(
            f"{name!r} gives a {type(output).__name__}, expected one tensor; watch a module inside it instead"
        )
    return output
