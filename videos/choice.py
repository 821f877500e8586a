"""Which windows of several films become clips: from as many films as there are, far apart within each.

    choose_windows([5, 1, 3], wanted=4)      # [(0, 0), (1, 0), (2, 0), (0, 4)]: film, window
    choose_clips(["a", "a", "b"], wanted=2)  # [0, 2]: indices, where each entry names its film

The choice follows from the arguments alone, so that a command that is given again reads the same clips.
"""

from collections.abc import Sequence

import numpy as np


def choose_windows(windows: Sequence[int], wanted: int) -> list[tuple[int, int]]:
    """`wanted` windows, or all, of films that have that number of windows each, as (film, window).

    The first is one of each film in their order, then a second of each, and so on: neighbours in the list are
    of different films as long as there are several. Those of one film are spread evenly from its first window
    to its last. Of more films than wanted, evenly spread ones are chosen.
    """
    films = len(windows)
    if wanted < films:
        return [(film, 0) for film in choose_films(films, wanted)]
    counts = [0] * films
    while sum(counts) < min(wanted, sum(windows)):
        for film in range(films):
            if counts[film] < windows[film] and sum(counts) < wanted:
                counts[film] += 1
    places = [_spread(windows[film], counts[film]) for film in range(films)]
    return [
        (film, places[film][turn])
        for turn in range(max(counts, default=0))
        for film in range(films)
        if turn < counts[film]
    ]


def choose_films(films: int, wanted: int) -> list[int]:
    """The indices of at most `wanted` films, evenly spread over all in their order."""
    return _spread(films, min(films, wanted))


def choose_clips(films: Sequence[str], wanted: int) -> list[int]:
    """The indices of `wanted` entries, or all, chosen like windows; each entry names its film."""
    entries: dict[str, list[int]] = {}
    for index, film in enumerate(films):
        entries.setdefault(film, []).append(index)
    by_film = list(entries.values())
    return [by_film[film][window] for film, window in choose_windows([len(own) for own in by_film], wanted)]


def _spread(count: int, chosen: int) -> list[int]:
    return np.linspace(0, count - 1, chosen).round().astype(int).tolist()
