"""How many independent clips a run has: clips of one film are alike, so intervals are taken over films.

    sample = sample_of(dataset)          # from its coordinates `film` and `control_film` along `clip`
    sample.count, sample.describe()      # 4, "4 films, 8 clips"
    per_film(dataset.centred_cosine)     # one entry of `clip` for each film, all films with equal weight

A dataset without these coordinates has clips that share no film, such as those of a world.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

FILM, CONTROL_FILM = "film", "control_film"
"""Coordinates along `clip`: the film of a clip, and that of its control clip."""
ONE_FILM = (
    "All clips and their control clips are parts of one film. They are not independent, and the intervals "
    "say nothing about other films."
)


@dataclass(frozen=True)
class Sample:
    """The clips of a run, and the films that they are of: 0 where clips share no films."""

    clips: int
    films: int = 0
    is_one_film: bool = False
    """Whether all clips and all control clips are of the same film."""

    @property
    def count(self) -> int:
        """What intervals count: films where there are several, otherwise clips."""
        return self.films if self.films > 1 else self.clips

    @property
    def unit(self) -> str:
        """`film` or `clip`."""
        return "film" if self.films > 1 else "clip"

    @property
    def units(self) -> str:
        """`8 clips` or `4 films`: the number that intervals count, in words."""
        return f"{self.count} {self.unit}{'s' * (self.count != 1)}"

    @property
    def note(self) -> str:
        """A caution where all clips are of one film; empty otherwise."""
        return ONE_FILM if self.is_one_film else ""

    def describe(self) -> str:
        """`4 films, 8 clips`, `one film, 8 clips` or `8 clips`."""
        clips = f"{self.clips} clip{'s' * (self.clips != 1)}"
        if self.films > 1:
            return f"{self.films} films, {clips}"
        return f"one film, {clips}" if self.is_one_film else clips


def sample_of_films(clips: int, films: Sequence[str], controls: Sequence[str]) -> Sample:
    """The sample of that many clips, with the film of each clip and of its control; empty where not known."""
    return Sample(clips, len(set(films)), len({*films, *controls}) == 1)


def sample_of(stored: xr.DataArray | xr.Dataset) -> Sample:
    """The sample of a dataset with the axis `clip`."""
    films, controls = (
        [str(film) for film in stored[name].values] if name in stored.coords else []
        for name in (FILM, CONTROL_FILM)
    )
    return sample_of_films(stored.sizes["clip"], films, controls)


def per_film(values: xr.DataArray, skipna: bool = True) -> xr.DataArray:
    """The mean of the clips of each film as one entry of `clip`; unchanged where there are not several films.

    NaN is a missing clip and is left out, unless `skipna` is False.
    """
    if sample_of(values).films < 2:
        return values
    films = np.array([str(film) for film in values[FILM].values])
    rows = [
        values.isel(clip=np.flatnonzero(films == film)).mean("clip", skipna=skipna)
        for film in dict.fromkeys(films)
    ]
    return xr.concat(rows, "clip")
