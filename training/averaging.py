"""A model with the averaged weights of its training, for validation and samples."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor


@contextmanager
def averaged_weights(model: Any, average: dict[str, Tensor]) -> Iterator[Any]:
    """Within it, the model evaluates with the averaged weights; afterwards it trains with its own again."""
    own = {name: weight.clone() for name, weight in model.state_dict().items()}
    model.load_state_dict(average)
    try:
        yield model.eval()
    finally:
        model.load_state_dict(own)
        model.train()
