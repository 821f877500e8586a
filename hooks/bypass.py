"""Bypass: pass over whole modules, with what they would have returned in their place.

    def stored(at, name, value):
        return kept[name] if at.step > 0 else None      # None: the module runs

    with Bypass(blocks, {"blocks.[0-7]": stored}) as bypass:
        video = rollout(model, noise, sigmas, on_pass=bypass.on_pass)

Unlike under an Edit, which replaces a value after it was computed, the body of the module is not run.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn

from framelens.hooks._instrument import Instrument, outside_graphs
from framelens.hooks.edit import alike

Substitute = Callable[[Any, str, Tensor], Tensor | None]


class Bypass(Instrument):
    """Returns `substitutes[pattern](at, name, value)` instead of running a module that matches.

    `value` is the module's first positional input; its output must have the same shape and dtype, as that of
    a block on a residual stream does. Where the substitute is None the module runs. Only in announced passes
    of these `roles`, since a block that is passed over also leaves nothing in memory. Hook points inside a
    module that did not run did not fire, and say so. The law of firing is Trace's; a compiled module is
    refused.
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
        self.substitutes, self.roles = dict(substitutes), frozenset(roles)

    def _attach(self, name: str, module: nn.Module, stack: ExitStack) -> None:
        forward = module.forward
        (substitute, *_) = (s for pattern, s in self.substitutes.items() if fnmatchcase(name, pattern))

        def instead(*inputs, **keywords):
            self._count(name)
            if getattr(self.at, "role", None) not in self.roles:
                return forward(*inputs, **keywords)
            out = substitute(self.at, name, inputs[0])
            return forward(*inputs, **keywords) if out is None else alike(name, inputs[0], out)

        if "forward" in vars(module):
            stack.callback(setattr, module, "forward", forward)
        else:
            stack.callback(delattr, module, "forward")
        module.forward = outside_graphs(instead)

    def _notices_hooks(self, module: nn.Module) -> bool:
        return False

    def _refuse_compiled(self, name: str, module: nn.Module) -> None:
        # A torch.compile wrapper hands attributes through to what it wraps: its forward cannot be replaced.
        super()._refuse_compiled(f"{name}._orig_mod" if "_orig_mod" in module._modules else name, module)
