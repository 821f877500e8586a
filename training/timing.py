"""Runs timed side by side, in random order, so that other processes slow all of them equally."""

import random
import time
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float


def time_interleaved(runs: Sequence[Callable[[], object]], rounds: int) -> Float[np.ndarray, "run round"]:
    """Seconds of each run in each round, after one round that is not timed.

    A run on a GPU must wait for the device before it returns.
    """
    for run in runs:
        run()
    order, seconds = random.Random(0), np.zeros((len(runs), rounds))
    for done in range(rounds):
        for index in order.sample(range(len(runs)), len(runs)):
            began = time.perf_counter()
            runs[index]()
            seconds[index, done] = time.perf_counter() - began
    return seconds
