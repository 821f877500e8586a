"""Which clip is the control of another, and what the results of a run say about the films of its clips.

control = control_of(clips, index)                    # of another film, where there is one
dataset.assign_coords(film_coords(clips, index))      # film and control_film, along clip
"""

from collections.abc import Sequence
from typing import Any

from framelens.analyses.sample import CONTROL_FILM, FILM
from framelens.probes.chunk.pasts import Clip


def control_of(clips: Sequence[Clip], index: int) -> Clip:
    """The clip whose past serves as control of clip `index`: the next one where clips do not share films.

    Otherwise the next one of another film, and where all are of one film, the one that is farthest from it.
    """
    own = clips[index].window
    later = [clips[(index + step) % len(clips)] for step in range(1, len(clips))]
    placed = [(clip, clip.window) for clip in later if clip.window is not None]
    if own is None or not placed:
        return clips[index + 1]
    elsewhere = [clip for clip, window in placed if window.film != own.film]
    if elsewhere:
        return elsewhere[0]
    return max(placed, key=lambda entry: abs(entry[1].first_frame - own.first_frame))[0]


def film_coords(clips: Sequence[Clip], index: int) -> dict[str, Any]:
    """The films of a clip and of its control, as coordinates along `clip`; empty where no film is known."""
    films = {FILM: clips[index].window, CONTROL_FILM: control_of(clips, index).window}
    return {name: ("clip", [window.film]) for name, window in films.items() if window is not None}


def control_films(clips: Sequence[Clip], count: int) -> tuple[str, ...]:
    """The film of the control of each of the first `count` clips; empty where clips are of no films."""
    controls = [control_of(clips, index).window for index in range(min(count, len(clips)))]
    return tuple(window.film for window in controls if window is not None)
