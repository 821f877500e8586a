"""Edit: replace the value at hook points while the network runs.

    def ablate(at, name, value):
        return value * 0 if at.step >= 10 else value

    with Edit(model.hook_dict, {"blocks.7.hook_attn_out": ablate}) as edit:
        video = rollout(model, noise, sigmas, on_pass=edit.on_pass)

An edit receives the moment, the name and the value, and returns the value that the network continues with.
"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn

from framelens.hooks._instrument import (
    Instrument,
    assign_by_pattern,
    exclude_from_graphs,
    require_same_form,
)
from framelens.hooks.trace import require_tensor

Replace = Callable[[Any, str, Tensor], Tensor]


class Edit(Instrument):
    """Replaces the value at each matching point by `edits[pattern](at, name, value)`.

    `at` is the announced pass (None without one), `name` a key of `points`, `value` that point's output.
    The new value must have the shape and dtype of the old one; the old one must not be changed in place.
    Gradients flow through. Instruments entered later receive the edited value, so two edits of one point are
    two nested Edits. ValueError where two patterns match one name; otherwise the errors of Trace.

    >>> import framelens
    >>> import torch
    >>> network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU())
    >>> with framelens.Edit({"first": network[0]}, {"first": lambda at, name, value: torch.ones_like(value)}):
    ...     output = network(torch.zeros(1, 3))
    >>> output
    tensor([[1., 1., 1., 1.]])
    """

    def __init__(self, points: Mapping[str, nn.Module], edits: Mapping[str, Replace]):
        super().__init__(points, edits)
        self.edits = assign_by_pattern(self.points, edits)

    def _attach(self, name: str, module: nn.Module, stack: ExitStack) -> None:
        edit = self.edits[name]

        def replace(_module, _inputs, output):
            self._count(name)
            value = require_tensor(name, output)
            return require_same_form(name, value, edit(self.at, name, value))

        stack.callback(module.register_forward_hook(exclude_from_graphs(replace)).remove)
