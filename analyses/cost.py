"""The cost of a statistic over one clip, computed from the shapes of its values.

    shape = WatchedShape(layers=30, heads=12, width=1536, tokens=1560, steps=50, pasts=(4, 12, 20))
    statistic.cost(shape)                    # -> StatisticCost(products, others, kept_bytes)

Each statistic has the arithmetic in its own file, as the method `cost` of its class.
"""

from dataclasses import dataclass

FLOAT32 = 4
"""Bytes of a number in which results are held."""


@dataclass(frozen=True, kw_only=True)
class WatchedShape:
    """The shapes of one clip's values in one stack of layers."""

    layers: int
    heads: int
    width: int
    """Channels of a token."""
    tokens: int
    """Tokens of one value: those of a chunk."""
    steps: int
    """Denoising steps at which values are seen."""
    pasts: tuple[int, ...]
    """Earlier frames whose keys are seen, for each frame at which values are seen."""
    chunk: int = 1
    """Frames that are generated together."""
    value_bytes: int = FLOAT32
    """Bytes of a number in a value."""

    @property
    def frames(self) -> int:
        """Frames (chunks) at which values are seen."""
        return len(self.pasts)

    def keys(self, past: int) -> int:
        """Keys of a chunk that sees `past` earlier frames."""
        return (past // self.chunk + 1) * self.tokens


@dataclass(frozen=True)
class StatisticCost:
    """Operations that a statistic adds, a multiply-add counts as two, and bytes of the tensors that it holds
    when the last value was added, before its result is read."""

    products: int
    """Operations in matrix products."""
    others: int
    """Element-wise operations and decompositions."""
    kept_bytes: int

    @property
    def operations(self) -> int:
        """All operations together."""
        return self.products + self.others

    def __add__(self, other: "StatisticCost") -> "StatisticCost":
        return StatisticCost(
            self.products + other.products, self.others + other.others, self.kept_bytes + other.kept_bytes
        )
