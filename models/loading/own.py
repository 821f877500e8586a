"""Our own checkpoints: the network of the stored configuration, with the stored weights.

model = build_own(path, metadata)
fill(path, model, weights)
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from framelens import models
from framelens.models.loading.checkpoint import check_shapes
from framelens.models.loading.finite import require_finite_config

UNFIT = (AttributeError, KeyError, TypeError, ValueError, RuntimeError, ZeroDivisionError)
"""Errors of a network that is built from values of another kind or size."""


@runtime_checkable
class InHalves(Protocol):
    """A network of two halves, one of which reads the past."""

    @property
    def reads_past(self) -> Any:
        """The half whose configuration bounds the history in view."""
        ...


def build_own(path: Path, metadata: dict[str, Any]) -> Any:
    """The network that a checkpoint of ours describes, its parameters without memory; ValueError if none.

    `fill` gives it the weights.
    """
    network = metadata.get("network")
    if network not in models.buildable():
        raise ValueError(f"{path} holds a {network!r} network; supported are {', '.join(models.buildable())}")
    require_finite_config(path, metadata.get("config"))
    try:
        with _without_memory():
            return models.network(network).build(metadata["config"])
    except UNFIT as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path}: its configuration does not fit a {network} network: {reason}") from None


def fill(path: Path, model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Makes these tensors the model's weights; ValueError unless they are its own by name and shape.

    A weight that the model has in two places is in the file once, and is in both afterwards.
    """
    own, places = distinct_weights(model), _places(model)
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    check_shapes(path, found, {name: tuple(tensor.shape) for name, tensor in own.items()})
    given = {name: nn.Parameter(weights[name], requires_grad=False) for name in own}
    model.load_state_dict({name: given[first] for name, first in places.items()}, assign=True)


def distinct_weights(model: nn.Module) -> dict[str, Tensor]:
    """The weights by name; one that the model has in two places only by its first name."""
    places, weights = _places(model), model.state_dict()
    return {name: weights[name] for name, first in places.items() if name == first}


def _places(model: nn.Module) -> dict[str, str]:
    """The name of every weight, and the first name of the same tensor."""
    first: dict[int, str] = {}
    weights = model.state_dict(keep_vars=True)
    return {name: first.setdefault(id(weight), name) for name, weight in weights.items()}


@contextmanager
def _without_memory() -> Iterator[None]:
    """Within it, parameters of new modules have a shape and no memory; buffers are made as usual.

    As accelerate's init_empty_weights, which is not always installed.
    """
    register = nn.Module.register_parameter

    def register_shape(self: nn.Module, name: str, param: nn.Parameter | None) -> None:
        empty = None if param is None else nn.Parameter(param.to("meta"), param.requires_grad)
        register(self, name, empty)

    nn.Module.register_parameter = register_shape
    try:
        yield
    finally:
        nn.Module.register_parameter = register
