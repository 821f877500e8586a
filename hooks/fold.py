"""Rows of a batch that are of one clip: attention along the frames of each place has a row for each place."""

from jaxtyping import Shaped
from torch import Tensor


def side_by_side(x: Shaped[Tensor, "b_and_fold h q *rest"], fold: int) -> Shaped[Tensor, "b h queries *rest"]:
    """The queries of `fold` neighbouring rows behind one another, so that each clip has one row."""
    return x if fold == 1 else x.unflatten(0, (-1, fold)).transpose(1, 2).flatten(2, 3)


def apart(x: Shaped[Tensor, "b h queries *rest"], fold: int) -> Shaped[Tensor, "b_and_fold h q *rest"]:
    """What `side_by_side` makes one row, in `fold` rows again."""
    return x if fold == 1 else x.unflatten(2, (fold, -1)).transpose(1, 2).flatten(0, 1)
