"""A model with the averaged weights of its training, for validation and samples."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


@contextmanager
def averaged_weights(model: Network, average: dict[str, Tensor]) -> Iterator[Network]:
    """Within it, the model evaluates with the averaged weights; afterwards it trains with its own again."""
    own = {name: weight.clone() for name, weight in model.state_dict().items()}
    model.load_state_dict(average)
    try:
        yield model.eval()
    finally:
        model.load_state_dict(own)
        model.train()
