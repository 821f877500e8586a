"""Reads any operation inside a module's forward, by nnsight; no hook point is needed.

    model = framelens.load("dense-tiles")
    attended = read(model, "blocks.3.attn", "history_attend_0", x, sigma, context)

    net = view(model)                       # in a notebook
    with net.trace(x, sigma, context):
        value = net.blocks[3].hook_resid_post.output.save()
    print(net.blocks[3].attn.source)        # the operations of that forward and their names

An operation is called as the text of the forward calls it, with a number: `F.gelu(x)` is `F_gelu_0`.
Use it to explore: a trace takes milliseconds where a forward hook takes microseconds, and the names of
operations depend on the source text of the forward. Everything else in the toolkit uses Trace and Edit.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn


def view(model: nn.Module):
    """An nnsight.NNsight of the model in which the standard names of its hook_dict, if it has one, work.

    A trace runs the model's forward, or `denoise` if it has none. nnsight stays attached to the model from
    then on: outputs are the same, each call is somewhat slower.
    """
    from nnsight import NNsight

    named = getattr(model, "hook_dict", {})
    paths = {id(module): path for path, module in model.named_modules(remove_duplicate=False)}
    if _has_forward(model) and all(paths.get(id(module)) == name for name, module in named.items()):
        return NNsight(model)
    return NNsight(_Renamed(model, named))


def read(model: nn.Module, module: str, operation: str, *inputs: Any, **keywords: Any) -> Any:
    """What one operation inside the forward of `module` returned during `model(*inputs, **keywords)`.

    For a model without a forward: during `model.denoise(*inputs, **keywords)`. To see the operations and
    their names, `print(view(model).get(module).source)`. The model is left as it was. ValueError for an
    unknown module and for an unknown operation.
    """
    import nnsight

    names = [name for name, _ in model.named_modules()]
    if module not in names:
        raise ValueError(f"no module is called {module!r}; there are {names}")
    if not _has_forward(model):
        model, module = _Renamed(model, {}), f"model.{module}".rstrip(".")
    with _restore_modules(model):
        net = nnsight.NNsight(model)
        source = net.get(module).source if module else net.source
        if operation not in source.names:
            raise ValueError(
                f"the forward of {module!r} has no operation {operation!r}; there are {list(source.names)}"
            )
        with net.trace(*inputs, **keywords):
            value = nnsight.save(getattr(source, operation).output)
    return value


class _Renamed(nn.Module):
    """The model, with the modules at its hook points also reachable by their standard names."""

    def __init__(self, model: nn.Module, named: Mapping[str, nn.Module]):
        super().__init__()
        for name, module in named.items():
            *parents, leaf = name.split(".")
            at = self
            for part in parents:
                if part not in at._modules:
                    at.add_module(part, nn.Module())
                at = at.get_submodule(part)
            at.add_module(leaf, module)
        self.model = model

    def forward(self, *inputs: Any, **keywords: Any) -> Any:
        run: Any = self.model if _has_forward(self.model) else self.model.denoise
        return run(*inputs, **keywords)


def _has_forward(model: nn.Module) -> bool:
    # nnsight sets a forward on the instance of every module that it wraps, so the class decides.
    return type(model).forward is not nn.Module.forward


@contextmanager
def _restore_modules(model: nn.Module) -> Iterator[None]:
    """Removes at the end what nnsight wrote into the modules that it wrapped."""
    before = {module: dict(vars(module)) for module in model.modules()}
    try:
        yield
    finally:
        for module, names in before.items():
            for name in set(vars(module)) - set(names):
                del vars(module)[name]
            # A forward that was set on the instance before.
            vars(module).update({name: names[name] for name in names if name == "forward"})
