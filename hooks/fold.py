"""Batches whose rows belong to one clip: attention along time has one row for each place in the frame.

`fold` neighbouring rows of the batch axis belong to one clip. Instruments work on clips, so they merge the
rows of a clip before they call back, and split them again for the network.
"""

from jaxtyping import Shaped
from torch import Tensor


def merge_rows(x: Shaped[Tensor, "b_and_fold h q *rest"], fold: int) -> Shaped[Tensor, "b h queries *rest"]:
    """One row for each clip: the queries of its `fold` rows one after another. Without a fold, x itself."""
    return x if fold == 1 else x.unflatten(0, (-1, fold)).transpose(1, 2).flatten(2, 3)


def split_rows(x: Shaped[Tensor, "b h queries *rest"], fold: int) -> Shaped[Tensor, "b_and_fold h q *rest"]:
    """The inverse of `merge_rows`: `fold` rows for each clip."""
    return x if fold == 1 else x.unflatten(2, (fold, -1)).transpose(1, 2).flatten(0, 1)
