"""nnsight, for reading inside a forward that nobody instrumented.

    attended = read(model, "blocks.3.attn", "F_scaled_dot_product_attention_0", x, sigma, context)

    net = view(model)                       # in a notebook
    with net.trace(x, sigma, context):
        value = net.blocks[3].hook_resid_post.output.save()

For exploring: a trace costs milliseconds where a forward hook costs microseconds, and the names of
operations follow the source text of the forward. Everything else in the toolkit uses Trace and Edit.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn


def view(model: nn.Module):
    """An nnsight.NNsight of the model in which the standard names of its hook_dict, if it has one, work.

    A trace runs the model's forward; of a model that has none, `denoise`. nnsight stays on the model for as
    long as the model lives: outputs are the same, each call is somewhat slower.
    """
    from nnsight import NNsight

    named = getattr(model, "hook_dict", {})
    paths = {id(module): path for path, module in model.named_modules(remove_duplicate=False)}
    if _has_forward(model) and all(paths.get(id(module)) == name for name, module in named.items()):
        return NNsight(model)
    return NNsight(_Renamed(model, named))


def read(model: nn.Module, module: str, operation: str, *inputs: Any, **keywords: Any) -> Any:
    """What one operation inside the forward of `module` returned during `model(*inputs, **keywords)`.

    Of a model without a forward, during `denoise`. `print(view(model).get(module).source)` shows the
    operations and their names. The model is left as it was. ValueError for an unknown module.
    """
    import nnsight

    names = [name for name, _ in model.named_modules()]
    if module not in names:
        raise ValueError(f"no module is called {module!r}; there are {names}")
    if not _has_forward(model):
        model, module = _Renamed(model, {}), f"model.{module}".rstrip(".")
    with _left_as_it_was(model):
        net = nnsight.NNsight(model)
        source = net.get(module).source if module else net.source
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
    # nnsight gives every module it wraps a forward of its own, so the instance says nothing.
    return type(model).forward is not nn.Module.forward


@contextmanager
def _left_as_it_was(model: nn.Module) -> Iterator[None]:
    """nnsight writes into each module it wraps; here everything new is taken out again."""
    before = {module: dict(vars(module)) for module in model.modules()}
    try:
        yield
    finally:
        for module, names in before.items():
            for name in set(vars(module)) - set(names):
                del vars(module)[name]
            # A forward that was patched in before nnsight came.
            vars(module).update({name: names[name] for name in names if name == "forward"})
