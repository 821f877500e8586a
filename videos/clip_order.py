"""Which of a fixed number of recordings a seed gives: those for training in drawn orders, others in turn.

order = ClipOrder(training=900, held_out=100)
order.row(7)                                   # 0 to 899, each once before one comes again
order.row(videos.VALIDATION_SEED)              # 900, and on to 999
"""

import numpy as np

from framelens import videos


class ClipOrder:
    """Rows of recordings: those for training, then those kept for validation. The seed alone decides."""

    def __init__(self, training: int, held_out: int):
        self.training, self.held_out = training, held_out
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, int))

    def row(self, seed: int) -> int:
        """The row of a seed: validation seeds go through the kept rows, others through drawn orders."""
        if seed >= videos.VALIDATION_SEED:
            return self.training + (seed - videos.VALIDATION_SEED) % self.held_out
        epoch, place = divmod(seed, self.training)
        if self._order[0] != epoch:
            self._order = epoch, np.random.default_rng((0x57012ED, epoch)).permutation(self.training)
        return int(self._order[1][place])
