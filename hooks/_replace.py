"""Replaces a function that is an attribute of a module, and puts the old one back in any order of removal."""

from collections.abc import Callable
from typing import Any


class Replacement:
    """Runs `call(inner, *inputs, **keywords)` wherever `owner.name` is called; `inner` is what was there.

    Replacements of one attribute form a chain, each the `inner` of the next. `remove` takes this one out of
    the chain, whether or not later ones are still there. A function that other code put on top stays, and
    still calls this replacement: `call` must then do nothing but call `inner`.
    """

    def __init__(self, owner: Any, name: str, call: Callable[..., Any]):
        self.owner, self.name, self.call = owner, name, call
        self.inner = getattr(owner, name)
        self.__name__ = name  # torch.compile asks functions of torch for it
        self.is_new = name not in vars(owner)
        setattr(owner, name, self)

    def __call__(self, *inputs: Any, **keywords: Any) -> Any:
        """What `call` makes of the call."""
        return self.call(self.inner, *inputs, **keywords)

    def remove(self) -> None:
        """Take this replacement out; where it was the first and the last one, the attribute is as before."""
        top = vars(self.owner).get(self.name)
        if top is self and self.is_new:
            delattr(self.owner, self.name)
        elif top is self:
            setattr(self.owner, self.name, self.inner)
        else:
            while isinstance(top, Replacement) and top.inner is not self:
                top = top.inner
            if isinstance(top, Replacement):
                top.inner, top.is_new = self.inner, self.is_new
