"""Bypass: skip whole modules and return something else in place of their output.

    def reuse(at, name, value):
        return kept[name] if at.step > 0 else None      # None: the module runs

    with Bypass(blocks, {"blocks.[0-7]": reuse}) as bypass:
        video = rollout(model, noise, sigmas, on_pass=bypass.on_pass)

An Edit replaces a value after it was computed; under a Bypass the body of the module does not run.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn

from framelens.hooks._instrument import (
    Instrument,
    assign_by_pattern,
    exclude_from_graphs,
    require_same_form,
)
from framelens.hooks._replace import Replacement

Substitute = Callable[[Any, str, Tensor], Tensor | None]


class Bypass(Instrument):
    """Returns `substitutes[pattern](at, name, value)` instead of running a module that matches.

    `value` is the module's first positional input, for a transformer block the residual stream [b n d]; the
    substitute must have the same shape and dtype. Where the substitute is None the module runs. Only
    announced passes of these `roles` are changed, since a block that is skipped also stores no keys and
    values. Hook points inside a module that did not run do not fire. Each module must be called exactly once
    in a pass; a compiled module is refused, and so are two patterns that match one name.
    """

    remedy = (
        "a module must be called once in a pass, with the residual stream as its first positional input; "
        "run the model uncompiled, and announce every forward pass by on_pass"
    )

    def __init__(
        self,
        points: Mapping[str, nn.Module],
        substitutes: Mapping[str, Substitute],
        roles: Iterable[str] = ("denoise",),
    ):
        super().__init__(points, substitutes)
        self.substitutes, self.roles = assign_by_pattern(self.points, substitutes), frozenset(roles)

    def _attach(self, name: str, module: nn.Module, stack: ExitStack) -> None:
        substitute = self.substitutes[name]

        def run(forward, *inputs, **keywords):
            self._count(name)
            if getattr(self.at, "role", None) not in self.roles:
                return forward(*inputs, **keywords)
            out = substitute(self.at, name, inputs[0])
            return forward(*inputs, **keywords) if out is None else require_same_form(name, inputs[0], out)

        stack.callback(Replacement(module, "forward", exclude_from_graphs(run)).remove)

    def _notices_hooks(self, module: nn.Module) -> bool:
        return False

    def _refuse_compiled(self, name: str, module: nn.Module) -> None:
        # A torch.compile wrapper forwards attributes to what it wraps: its forward cannot be replaced.
        super()._refuse_compiled(f"{name}._orig_mod" if "_orig_mod" in module._modules else name, module)
