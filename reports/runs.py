"""A finished run folder, opened for reading: a manifest.json, and a netCDF file for each dataset.

run = open_run("dense-tiles/default")
run.read("frame_attention", "cross_mass", network="trained")    # loaded, the file is closed again
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import pandas as pd
import xarray as xr

from framelens.analyses.averages import MODES, first_mode, sees_past
from framelens.analyses.sample import Sample, sample_of, sample_of_films
from framelens.records.damage import NotReadable, NotShown, name_damage
from framelens.records.manifest import FILE, Manifest, ProbeManifest
from framelens.records.plan import FILE as PLAN
from framelens.records.plan import Plan
from framelens.records.runs import find_run
from framelens.reports.datasets import open_netcdf

ROOT = Path(__file__).resolve().parent.parent
PROBE = ProbeManifest.kind
M = TypeVar("M", bound=Manifest)
ATTENTION = "frame_attention"


@dataclass(frozen=True, repr=False)
class Run:
    """A complete run: its folder and its manifest; datasets are read on request."""

    folder: Path
    manifest: Manifest

    def __repr__(self) -> str:
        """Folder, kind and datasets in one line."""
        return f"<{self.kind} run {self.folder}: {', '.join(self.datasets) or 'no datasets'}>"

    @property
    def datasets(self) -> list[str]:
        """The names of the datasets that the run has, which `read` takes."""
        return sorted(path.stem for path in self.folder.glob("*.nc"))

    @property
    def similarity(self) -> xr.Dataset:
        """Similarity of features between denoising steps: `step_similarity`, all networks and modes."""
        return self._whole("step_similarity")

    @property
    def attention(self) -> xr.Dataset:
        """Share of attention by frame, with entropy and uniform share: `frame_attention`, all networks."""
        return self._whole(ATTENTION)

    @cached_property
    def plan(self) -> Plan | None:
        """The verdict, its evidence and the split; None where the run has no plan.json."""
        path = self.folder / PLAN
        return Plan.read(path) if path.exists() else None

    def to_pandas(self, dataset: str, *variables: str) -> pd.DataFrame:
        """A dataset as a table with one row per place (clip, layer, step, ...) and one column per variable.

        Without names all variables that have the most axes are taken, so that each row has every value.
        """
        whole = self._whole(dataset)
        sizes = {name: len(whole[name].dims) for name in whole.data_vars}
        names = variables or [name for name, size in sizes.items() if size == max(sizes.values())]
        for name in names:
            if name not in sizes:
                raise NotReadable(f"{self.path(dataset)} has no {name!r}; there are {list(sizes)}")
        return whole[list(names)].to_dataframe().reset_index()

    @property
    def kind(self) -> str:
        """The kind of run, which decides the figures and the page."""
        return self.manifest.kind

    @property
    def probe(self) -> ProbeManifest:
        """The manifest of a probe's run; ValueError for a run of another kind."""
        return self.manifest_as(ProbeManifest)

    def manifest_as(self, kind: type[M]) -> M:
        """The manifest, which must be of that kind; ValueError for a run of another kind."""
        if not isinstance(self.manifest, kind):
            raise ValueError(f"{self.folder} is a run of kind {self.kind!r}, which has no {kind.__name__}")
        return self.manifest

    @property
    def model(self) -> str:
        """The model's name."""
        return self.probe.model.name

    @property
    def name(self) -> str:
        """The run's name: that of its folder."""
        return self.folder.name

    @property
    def geometry(self) -> dict:
        """Frame size, patch, tokens per frame, layers and heads."""
        return self.probe.model.geometry

    def path(self, dataset: str) -> Path:
        """The file of a dataset; emergence may also be shipped beside the model's weights."""
        own = self.folder / f"{dataset}.nc"
        if dataset != "emergence" or own.exists():
            return own
        shipped = ROOT / "models" / "weights" / f"{self.model}.{dataset}.nc"
        return shipped if shipped.exists() else own

    def files(self, datasets: tuple[str, ...]) -> str:
        """The files of these datasets as text."""
        return ", ".join(str(self.path(dataset)) for dataset in datasets)

    def missing(self, needs: tuple[str, ...]) -> list[str]:
        """Those of `needs` that this run does not have.

        Attention is missing where no probed frame sees an earlier one, as in a separated model whose
        decoder sees the current frame alone.
        """
        lacking = [dataset for dataset in needs if not self.path(dataset).exists()]
        if ATTENTION in needs and ATTENTION not in lacking and not self._sees_past:
            lacking.append("attention to earlier frames")
        return lacking

    @cached_property
    def _sees_past(self) -> bool:
        with self._while_open(ATTENTION) as stored:
            return sees_past(stored)

    def has(self, dataset: str, *variables: str) -> bool:
        """Whether the dataset has these variables; one of an older version may not."""
        with self._while_open(dataset) as stored:
            return all(variable in stored for variable in variables)

    def require(self, dataset: str, *variables: str) -> None:
        """NotShown where the dataset is of an older version, without one of these variables."""
        missing = [variable for variable in variables if not self.has(dataset, variable)]
        if missing:
            raise NotShown(f"{', '.join(missing)} in {dataset}, which this version measures: probe again")

    def read(self, dataset: str, *variables: str, **where: str) -> xr.Dataset:
        """Variables of one dataset, loaded, at the labels in `where` (network=, mode=).

        Where the dataset has several modes and none is named, it is `self.mode(dataset)`.
        """
        with self._while_open(dataset) as stored:
            for variable in variables:
                if variable not in stored:
                    raise NotReadable(f"{self.path(dataset)} has no {variable!r}; there are {list(stored)}")
            chosen = stored[list(variables)] if variables else stored
            if "mode" in chosen.dims:
                where = {"mode": str(first_mode(stored))} | where
            for dim, label in where.items():
                if dim in chosen.coords and label not in chosen[dim].values:
                    raise NotReadable(
                        f"{self.path(dataset)} has no {dim} {label!r}; there are {list(chosen[dim].values)}"
                    )
            return chosen.sel({d: v for d, v in where.items() if d in chosen.dims}, drop=True).compute()

    @contextmanager
    def open_datasets(self, *datasets: str) -> Iterator[dict[str, xr.Dataset]]:
        """Those of the named datasets that the run has, open: a value is read when it is used."""
        with ExitStack() as stack:
            yield {
                name: stack.enter_context(self._open(name)) for name in datasets if self.path(name).exists()
            }

    def networks(self, dataset: str) -> list[str]:
        """The networks measured, the trained one first."""
        with self._while_open(dataset) as stored:
            names = [str(name) for name in stored["network"].values]
        return sorted(names, key=lambda name: (name != "trained", name))

    def mode(self, dataset: str) -> str | None:
        """The mode that figures show: teacher forced where it was run; None for datasets without modes."""
        with self._while_open(dataset) as stored:
            return first_mode(stored)

    def modes(self, dataset: str) -> list[str]:
        """The modes measured, teacher forced first."""
        with self._while_open(dataset) as stored:
            modes = [str(mode) for mode in stored["mode"].values]
        return sorted(modes, key=lambda mode: (mode not in MODES, mode != MODES[0], mode))

    def sample(self, dataset: str) -> Sample:
        """The clips that were measured, and their films."""
        with self._while_open(dataset) as stored:
            return sample_of(stored)

    @property
    def probed_sample(self) -> Sample:
        """The clips of a probe's run, and their films, by its manifest."""
        probe = self.probe
        return sample_of_films(int(probe.settings["clips"]), probe.clip_films, probe.control_films)

    def sigma(self, step: int) -> float:
        """Noise level of a denoising step."""
        return self.probe.sigmas[step]

    @property
    def remedy(self) -> str:
        """What a user can do about a damaged file of this run."""
        return f"put back a whole copy, or delete {self.folder} and run again: {self.manifest.command}"

    def _whole(self, dataset: str) -> xr.Dataset:
        with self._while_open(dataset) as stored:
            return stored.compute()

    @contextmanager
    def _while_open(self, dataset: str) -> Iterator[xr.Dataset]:
        """The dataset, open; ValueError, which names the file and the remedy, where it cannot be read."""
        path = self.path(dataset)
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist; this run did not measure {dataset}")
        with name_damage(str(path), self.remedy), self._open(dataset) as stored:
            yield stored

    def _open(self, dataset: str) -> AbstractContextManager[xr.Dataset]:
        with name_damage(str(self.path(dataset)), self.remedy):
            return open_netcdf(self.path(dataset))


def open_run(run: str | Path) -> Run:
    """The finished run that a path, `model/run` or a name of its own names; any other raises ValueError.

    >>> import framelens
    >>> run = framelens.open_run("reports/gallery/compare/tiles")
    >>> run.kind, run.datasets
    ('compare', ['compare'])
    """
    folder = find_run(run)
    manifest = Manifest.read(folder / FILE)
    if not manifest.complete:
        raise ValueError(f"{folder} is incomplete; run again: {manifest.command}")
    return Run(folder, manifest)
