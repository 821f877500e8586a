"""A run's manifest: what was run, of which model, with which settings, and where it was run.

manifest = Manifest.read(folder / "manifest.json")            # of any kind of run
manifest = ProbeManifest.read(folder / "manifest.json")       # ValueError for another kind
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from framelens.records import as_attributes, typed
from framelens.records.identity import Identity

FILE = "manifest.json"
M = TypeVar("M", bound="Manifest")
SETTINGS = {
    "clips": int, "frames": int, "context": int, "steps": int, "probed_frames": tuple[int, ...],
    "quick": bool, "guidance": float, "videos": str | None, "set": dict,
    "seed": int, "device": str, "dtype": str,
}  # fmt: skip
"""What a probe's settings say at least, of which type."""
GEOMETRY = {"frames_per_chunk": int, "tokens_per_frame": int, "layers": int}
"""What the geometry of a probed model says at least, of which type."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What every run says."""

    command: str
    created: str
    git_commit: str | None
    versions: dict[str, Any]
    settings: dict[str, Any]
    complete: bool
    kind: ClassVar[str] = ""
    """Decides the figures and the page; empty for any."""
    again: ClassVar[str] = "run the command that made it"
    """What makes one."""

    @classmethod
    def read(cls: type[M], path: Path) -> M:
        """The manifest in that file; FileNotFoundError or ValueError, in one line, where there is none."""
        if cls.kind:
            return typed.read(cls, path, cls.kind, cls.again)
        kind = typed.read_values(path, None, cls.again)["kind"]
        found = next((each for each in KINDS if each.kind == kind and issubclass(each, cls)), None)
        if found is None:
            kinds = ", ".join(each.kind for each in KINDS)
            raise ValueError(f"{path} is not a manifest but of kind {kind!r}; give one of {kinds}")
        return found.read(path)

    def write(self, path: Path) -> Path:
        """Writes it as JSON."""
        return typed.write(path, self.kind, self)

    def attributes(self) -> dict[str, Any]:
        """What repeats the run, as attributes of each of its netCDF files."""
        about = {name: getattr(self, name) for name in ("command", "created", "git_commit", "versions")}
        return as_attributes(about | {"settings": self.settings, "seed": self.settings.get("seed")})


@dataclass(frozen=True)
class ProbedModel:
    """What identifies a model."""

    name: str
    file: str
    sha256: str
    parameters: int
    geometry: dict[str, Any]
    network: str
    videos: str | None
    training: dict[str, Any] | None
    assumed: Any
    latent: bool
    sampling: dict[str, Any] | None
    repo: str | None
    revision: str | None


@dataclass(frozen=True, kw_only=True)
class ProbeManifest(Manifest):
    """The manifest of a probe's run."""

    loaded_from: str
    """What --model named: a shipped model, a path, a hub id or an adapter's function."""
    model: ProbedModel
    sigmas: tuple[float, ...]
    sessions: tuple[dict[str, Any], ...]
    """One for each time that clips were measured."""
    identity: Identity | None = None
    """What the run is computed on; None in a run of an older version, which is not resumed."""
    windows: tuple[dict[str, Any], ...] = ()
    """Of clips from films, in order with the last control: film, first frame, frames, stride, frame rate."""
    control_films: tuple[str, ...] = ()
    """The film of each clip's control; empty where clips are of no films."""
    notes: tuple[str, ...] = ()
    """What a reader of the numbers should know, as sentences."""
    kind: ClassVar[str] = "probe"
    again: ClassVar[str] = "framelens probe --model X"

    def __post_init__(self):
        typed.check_entries(self.settings, SETTINGS, "settings")
        typed.check_entries(self.model.geometry, GEOMETRY, "model.geometry")

    def attributes(self) -> dict[str, Any]:
        """What repeats the run; the code is stated by each clip's files, as sessions may differ in it."""
        about = {"command": self.command, "settings": self.settings, "seed": self.settings["seed"]}
        return as_attributes(about | {"model": self.model.name, "model_sha256": self.model.sha256})

    @property
    def clip_films(self) -> list[str]:
        """The film that each clip is a part of; empty where clips are of no films."""
        return [str(window["file"]) for window in self.windows[: self.settings["clips"]]]


@dataclass(frozen=True, kw_only=True)
class TitledManifest(Manifest):
    """The manifest of a run of another kind than probe, with a title and a summary for its page."""

    title: str
    summary: str


@dataclass(frozen=True, kw_only=True)
class BenchManifest(TitledManifest):
    """The manifest of a benchmark of dense and separated networks."""

    preset: str
    timed: dict[str, Any]
    networks: dict[str, Any]
    random_weights: bool
    plan: dict[str, Any] | None
    """The plan whose split was timed."""
    machine: dict[str, Any]
    text: str
    """As it was printed."""
    kind: ClassVar[str] = "bench"
    again: ClassVar[str] = "framelens bench scd"


@dataclass(frozen=True, kw_only=True)
class CompareManifest(TitledManifest):
    """The manifest of a comparison of trainings at an equal budget."""

    state_error: str | None
    """What the state error of that world is; None where it has none."""
    device: str
    kind: ClassVar[str] = "compare"
    again: ClassVar[str] = "framelens compare-train"


@dataclass(frozen=True, kw_only=True)
class SplitManifest(TitledManifest):
    """The manifest of a plan that was acted on: quality against time."""

    device: str
    kind: ClassVar[str] = "split"
    again: ClassVar[str] = "framelens split"


KINDS: tuple[type[Manifest], ...] = (ProbeManifest, BenchManifest, CompareManifest, SplitManifest)
"""Every kind of run."""
