"""Places that are evenly spaced in a row, the same ones in probes and in figures."""

import numpy as np


def even_places(count: int, most: int) -> list[int]:
    """At most `most` of the places 0 to `count` - 1, evenly spaced, with the first and the last."""
    return np.linspace(0, count - 1, min(most, count)).round().astype(int).tolist()
