"""Which runs are compared, whether they share clips and layers, and what each lacks.

runs = Compared.of([open_run(a), open_run(b)])
runs.names                       # ["dense-tiles/default", "scd-tiles/default"]
runs.share_clips                 # whether clip i is the same video in every run
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from framelens.analyses.depth import depth_of
from framelens.reports.comparison.measures import Measure
from framelens.reports.runs import Run

DECIDES_CLIPS = ("seed", "frames")
"""Settings that decide, with the videos, which clip is clip i."""


@dataclass(frozen=True)
class Compared:
    """Probe runs in the order given; the first is what the others are compared with."""

    runs: tuple[Run, ...]

    @classmethod
    def of(cls, runs: Sequence[Run]) -> "Compared":
        """ValueError for fewer than two runs, for the same run twice, and for a run of another kind."""
        if len(runs) < 2:
            raise ValueError("a comparison needs at least two runs; `framelens runs` lists them")
        folders = [run.folder.resolve() for run in runs]
        for index, (run, folder) in enumerate(zip(runs, folders, strict=True)):
            run.probe  # noqa: B018 (refuses a run of another kind)
            if folder in folders[:index]:
                raise ValueError(f"{run.folder} is given twice; give two different runs")
        return cls(tuple(runs))

    @property
    def names(self) -> list[str]:
        """`model/run` of each; the whole path where two would have the same name."""
        short = [f"{run.model}/{run.name}" for run in self.runs]
        return short if len(set(short)) == len(short) else [str(run.folder) for run in self.runs]

    @property
    def share_clips(self) -> bool:
        """Whether clip i is the same video in every run."""
        return len({_clips_of(run) for run in self.runs}) == 1

    @property
    def settings_that_differ(self) -> dict[str, list[Any]]:
        """Settings with more than one value over the runs, with the value of each run."""
        return find_differing([run.probe.settings | {"videos": _videos_of(run)} for run in self.runs])

    def lacking(self, measure: Measure) -> dict[str, list[str]]:
        """For each run that cannot show the measure, the datasets that it lacks, or the variable of one."""
        found = {}
        for name, run in zip(self.names, self.runs, strict=True):
            missing = run.missing(measure.needs)
            if not missing and measure.variable and not run.has(*measure.needs, measure.variable):
                missing = [f"{measure.variable} of {measure.needs[0]}"]
            if missing:
                found[name] = missing
        return found


def find_differing(each: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The entries with more than one value, with all values; None where one has no such entry."""
    names = dict.fromkeys(name for settings in each for name in settings)
    values = {name: [settings.get(name) for settings in each] for name in names}
    return {name: row for name, row in values.items() if any(value != row[0] for value in row)}


def share_places(values: Sequence[xr.DataArray]) -> bool:
    """Whether all values have the same layers, or the same frames."""
    return len({tuple(_places(each)) for each in values}) == 1


def positions(values: xr.DataArray, are_shared: bool) -> np.ndarray:
    """Where the values are drawn: by layer or frame, or from 0 to 1 along the depth if models differ."""
    if "layer" not in values.dims:
        return values.frame.values
    found = np.asarray(depth_of(values).positions, float)
    return found if are_shared else (found + 0.5) / len(found)


def _places(values: xr.DataArray) -> list[str]:
    return [str(place) for place in (values.frame if "frame" in values.dims else values.point).values]


def _clips_of(run: Run) -> tuple:
    return (_videos_of(run), *(run.probe.settings[name] for name in DECIDES_CLIPS))


def _videos_of(run: Run) -> Any:
    return run.probe.settings["videos"] or run.probe.model.videos
