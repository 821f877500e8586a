"""Tests of laws run in float64: what is made is float64, and nothing on the way is brought down to float32.

pytestmark = pytest.mark.usefixtures("all_float64")      # a whole file, fixtures of its module included
@pytest.mark.usefixtures("float64")                      # one test
with single_precision(): ...                             # in between, as outside of tests
"""

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import TypeVar

import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)
_to_float32 = Tensor.float


def _at_least_float32(x: Tensor, *settings, **more) -> Tensor:
    """`.float()` of half precision is float32, and of float64 what it was.

    Networks compute norms and rotations in float32 where their weights are bfloat16, and say `.float()`.
    """
    return x if x.dtype == torch.float64 else _to_float32(x, *settings, **more)


@contextmanager
def double_precision(*modules: ModuleType) -> Iterator[None]:
    """Within it tensors are float64 by default, and so are the float32 constants of those modules."""
    before = torch.get_default_dtype()
    constants = [
        (module, name, value)
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, Tensor) and value.dtype == torch.float32
    ]
    torch.set_default_dtype(torch.float64)
    Tensor.float = _at_least_float32
    try:
        for module, name, value in constants:
            setattr(module, name, value.double())
        yield
    finally:
        torch.set_default_dtype(before)
        Tensor.float = _to_float32
        for module, name, value in constants:
            setattr(module, name, value)


@contextmanager
def single_precision() -> Iterator[None]:
    """Within it everything is as outside of tests."""
    before, to_float = torch.get_default_dtype(), Tensor.float
    torch.set_default_dtype(torch.float32)
    Tensor.float = _to_float32
    try:
        yield
    finally:
        torch.set_default_dtype(before)
        Tensor.float = to_float


def as_default(network: Network) -> Network:
    """The network in float64 where that is requested: its weights are then those of float32, exactly."""
    return network.to(torch.get_default_dtype()) if torch.get_default_dtype() == torch.float64 else network
