"""The layers that a denoising pass runs through, and how to run it with some of them replaced.

layers = Layers(model)
with layers.replace_outputs({0: lambda x: x, 1: lambda x: stored}) as on_pass:      # starts after layer 1
    on_pass(at)
    velocity = model.denoise(x, sigma, context)
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import filter as match
from functools import cached_property, partial
from typing import Any

from torch import Tensor, nn

from framelens.diffusion.contract import CausalDiffuser, traits
from framelens.hooks.bypass import Bypass
from framelens.hooks.edit import Edit
from framelens.hooks.trace import Trace

Output = Callable[[Tensor], Tensor]
"""A layer's output, from its input."""


class Layers:
    """The blocks of the stack that runs in `denoise`, numbered from 0 in their order.

    If they are separate modules, found under the names of their hook points or given by the model's
    `block_dict`, a replaced layer is not run. In other models it is run and its output is replaced.
    """

    def __init__(self, model: CausalDiffuser):
        self.model = model
        stack = traits(model).denoising_stack
        self.names: list[str] = []
        while f"{stack}blocks.{len(self.names)}.hook_resid_post" in model.hook_dict:
            self.names.append(f"{stack}blocks.{len(self.names)}")
        if not self.names:
            raise ValueError(
                f"the model has no hook point {stack}blocks.0.hook_resid_post, by which its layers are "
                f"found; there are {list(model.hook_dict)}"
            )

    def __len__(self) -> int:
        return len(self.names)

    def check(self, first: int, last: int) -> None:
        """ValueError unless layers `first` to `last` are a range within this stack, with a layer in it."""
        if not 0 <= first <= last < len(self):
            raise ValueError(
                f"layers {first} to {last} are not within the {len(self)} layers that denoise; choose "
                f"first and last from 0 to {len(self) - 1}"
            )

    @cached_property
    def modules(self) -> dict[str, nn.Module] | None:
        """The blocks by name, or None for a model whose layers cannot be skipped."""
        offered = traits(self.model).block_dict
        if offered is not None:
            return {name: offered[name] for name in self.names}
        if not isinstance(self.model, nn.Module):
            return None
        try:
            found = {name: self.model.get_submodule(name) for name in self.names}
        except AttributeError:
            return None
        points = self.model.hook_dict
        # The hook points at the two ends of a block must be its children.
        is_block = all(
            any(points[f"{name}.{end}"] is child for child in block.children())
            for name, block in found.items()
            for end in ("hook_resid_pre", "hook_resid_post")
        )
        return found if is_block else None

    @property
    def points(self) -> list[str]:
        """The hook points of the residual stream: before the first layer, then after each layer."""
        return [f"{self.names[0]}.hook_resid_pre", *(f"{name}.hook_resid_post" for name in self.names)]

    @contextmanager
    def record(self) -> Iterator[tuple[Callable, list[Tensor]]]:
        """A callback and a list; one pass fills the list with the residual stream at `points`."""
        kept: list[Tensor] = []
        points = {name: self.model.hook_dict[name] for name in self.points}
        with Trace(points, points, lambda at, name, value: kept.append(value.clone())) as trace:
            yield trace.on_pass, kept

    @contextmanager
    def replace_outputs(self, outputs: Mapping[int, Output]) -> Iterator[Callable]:
        """The sampler's callback; in denoising passes layer l gives `outputs[l](its input)`."""
        if not outputs:
            yield lambda at: None
        elif self.modules is None:
            with Edit(self.model.hook_dict, self._edits(outputs)) as edit:
                yield edit.on_pass
        else:
            blocks = {self.names[layer]: self.modules[self.names[layer]] for layer in outputs}
            substitutes = {self.names[layer]: _on_value(output) for layer, output in outputs.items()}
            with Bypass(blocks, substitutes) as bypass:
                yield bypass.on_pass

    def _edits(self, outputs: Mapping[int, Output]) -> dict[str, Callable]:
        """The same outputs as edits of the values at the two ends of each layer."""
        entered: dict[str, Tensor] = {}
        edits = {}
        for layer, output in outputs.items():
            name = self.names[layer]
            edits[f"{name}.hook_resid_pre"] = partial(_note, entered)
            edits[f"{name}.hook_resid_post"] = partial(_give, entered, output)
        return edits


def _on_value(output: Output) -> Callable[[Any, str, Tensor], Tensor]:
    return lambda at, name, value: output(value)


def _note(entered: dict[str, Tensor], _at: Any, name: str, value: Tensor) -> Tensor:
    entered[name.removesuffix(".hook_resid_pre")] = value
    return value


def _give(entered: dict[str, Tensor], output: Output, at: Any, name: str, value: Tensor) -> Tensor:
    return output(entered.pop(name.removesuffix(".hook_resid_post"))) if at.role == "denoise" else value


def select_patterns(model: CausalDiffuser, patterns: Iterable[str]) -> list[str]:
    """Those of the patterns that match a hook point: what a model leaves out, statistics leave out."""
    return [pattern for pattern in patterns if match(model.hook_dict, pattern)]
