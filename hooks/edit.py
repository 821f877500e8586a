"""Edit: replace the value at hook points while the network runs.

    def ablate(at, name, value):
        return value * 0 if at.step >= 10 else value

    with Edit(model.hook_dict, {"blocks.7.hook_attn_out": ablate}) as edit:
        video = rollout(model, clip, on_pass=edit.on_pass)

An edit sees the moment, the name and the value, and returns the value to go on with.
"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn

from framelens.hooks._instrument import Instrument, outside_graphs
from framelens.hooks.trace import tensor_of

Replace = Callable[[Any, str, Tensor], Tensor]


class Edit(Instrument):
    """Puts `edits[pattern](at, name, value)` in place of the value at each matching point.

    The new value must have the shape and dtype of the old one, which must not be
    changed in place. Several patterns that match one point apply in their order;
    instruments entered later see the edited value. ValueError and SilentHookError
    are raised as by Trace.
    """

    def __init__(self, points: Mapping[str, nn.Module], edits: Mapping[str, Replace]):
        super().__init__(points, edits)
        self.edits = dict(edits)

    def _attach(self, name: str, module: nn.Module, stack: ExitStack) -> None:
        mine = [edit for pattern, edit in self.edits.items() if fnmatchcase(name, pattern)]

        def replace(_module, _inputs, output):
            self._count(name)
            value = tensor_of(name, output)
            for edit in mine:
                value = alike(name, value, edit(self.at, name, value))
            return value

        stack.callback(module.register_forward_hook(outside_graphs(replace)).remove)


def alike(name: str, old: Tensor, new: Any) -> Tensor:
    """The new value, if it is a tensor of the old one's shape and dtype; else ValueError."""
    got = (tuple(new.shape), new.dtype) if isinstance(new, Tensor) else type(new).__name__
    expected = (tuple(old.shape), old.dtype)
    if got != expected:
        raise ValueError(f"the edit at {name!r} returned {got}, expected {expected}: return such a tensor")
    return new
