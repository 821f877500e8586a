"""together: several instruments attached at once, with one `on_pass` for the sampler.

trace = Trace(model.hook_dict, "blocks.*.hook_resid_post", keep)
tap = AttentionTap(model.attn_dict, "*", measure)
with together(trace, tap) as instruments:
    rollout(model, noise, sigmas, on_pass=instruments.on_pass)
"""

from contextlib import ExitStack
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Attachable(Protocol):
    """What `together` takes: a context manager with `on_pass`, as every instrument is."""

    def on_pass(self, at: Any) -> None:
        """Take note that the forward pass `at` is about to run."""
        ...

    def __enter__(self) -> Any: ...

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> bool | None: ...


class Together:
    """Instruments that are attached in their order and detached in the reverse order; made by `together`."""

    def __init__(self, instruments: tuple[Attachable, ...]):
        self.instruments = instruments
        self._attached: ExitStack | None = None

    def on_pass(self, at: Any) -> None:
        """Announce the forward pass `at` to each instrument, in their order."""
        for instrument in self.instruments:
            instrument.on_pass(at)

    def __enter__(self) -> "Together":
        with ExitStack() as stack:
            for instrument in self.instruments:
                stack.enter_context(instrument)
            self._attached = stack.pop_all()
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> bool | None:
        stack, self._attached = self._attached, None
        return None if stack is None else stack.__exit__(kind, error, traceback)


def together(*instruments: Attachable) -> Together:
    """All of these instruments as one: attached together or not at all; each receives every pass together.

    An error while one is attached detaches those before it. Each is detached even where another raises
    while it is detached. TypeError for what is not an instrument.

    >>> import framelens
    >>> import torch
    >>> network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU())
    >>> names = []
    >>> first, second = (
    ...     framelens.Trace({name: module}, "*", lambda at, name, value: names.append(name))
    ...     for name, module in {"linear": network[0], "relu": network[1]}.items()
    ... )
    >>> with framelens.together(first, second):
    ...     output = network(torch.ones(2, 3))
    >>> names
    ['linear', 'relu']
    """
    for instrument in instruments:
        if not isinstance(instrument, Attachable):
            raise TypeError(
                f"together takes instruments, which have on_pass and are attached by `with`; got "
                f"a {type(instrument).__name__}"
            )
    return Together(instruments)
