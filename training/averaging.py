"""The averaged weights of a training in the place of its own ones, for a while."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor


@contextmanager
def averaged_weights(model: Any, average: dict[str, Tensor]) -> Iterator[Any]:
    """Within it, the model has the averaged weights and evaluates; afterwards it has its own and trains."""
    own = {name: weight.clone() for name, weight in model.state_dict().items()}
    model.load_state_dict(average)
    try:
        yield model.eval()
    finally:
        model.load_state_dict(own)
        model.train()
