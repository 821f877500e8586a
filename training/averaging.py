"""A model with the averaged weights of its training, for validation and samples."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

from torch import Tensor, nn

from framelens.training.adapters import trained_state

Network = TypeVar("Network", bound=nn.Module)


@contextmanager
def averaged_weights(model: Network, average: dict[str, Tensor]) -> Iterator[Network]:
    """Within it, the model evaluates with the averaged weights; afterwards it trains with its own again."""
    own = {name: weight.clone() for name, weight in trained_state(model).items()}
    load_trained(model, average)
    try:
        yield model.eval()
    finally:
        load_trained(model, own)
        model.train()


def load_trained(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Gives the model these weights of `trained_state`; all others stay as they are."""
    model.load_state_dict({**model.state_dict(), **state})
