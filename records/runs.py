"""The run folders under a folder of runs: found by name or path, and listed.

    folder = find_run("dense-tiles/default")        # or "default", or a path
    for run in known_runs(): print(run.model, run.verdict, run.size)

Reads manifests and plans only, so it answers at once.
"""

import shlex
from dataclasses import dataclass
from pathlib import Path

from framelens.records.manifest import FILE, Manifest, ProbeManifest
from framelens.records.notes import print_note
from framelens.records.plan import FILE as PLAN
from framelens.records.plan import Plan

ROOT = Path("runs")
NOT_SETTINGS = ("--model", "--run", "--out", "--workers", "--device", "--threads")
"""Options of a command that the list of settings leaves out."""


@dataclass(frozen=True)
class KnownRun:
    """One run folder: what was run, whether it is finished, and what it found."""

    folder: Path
    kind: str
    model: str
    """The model's name; for runs of other kinds the name of the folder above."""
    is_complete: bool
    created: str
    """When the run began, as in its manifest."""
    settings: str
    """The options of its command that decide its numbers, as they were given."""
    verdict: str | None
    """The verdict of its plan, for a probe's run that has one."""
    size: int
    """Bytes of all its files."""

    @property
    def name(self) -> str:
        """`model/run`, which `find_run` takes."""
        return f"{self.folder.parent.name}/{self.folder.name}"


def run_folders(root: str | Path = ROOT) -> list[Path]:
    """Every run folder `<root>/<model or kind>/<run>`, finished or not."""
    return sorted(path.parent for path in Path(root).glob(f"*/*/{FILE}"))


def find_run(text: str | Path, root: str | Path = ROOT) -> Path:
    """The run folder that `text` names: a path, `model/run`, or the name of a run or of a model that only one
    run has. ValueError for any other text; it lists the known runs that come closest.
    """
    if (Path(text) / FILE).exists():
        return Path(text)
    folders = run_folders(root)
    words = Path(text).parts
    for matches in (
        [folder for folder in folders if folder.parts[-2:] == words[-2:] and len(words) > 1],
        [folder for folder in folders if (folder.name,) == words],
        [folder for folder in folders if (folder.parent.name,) == words or folder.parent == Path(text)],
    ):
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise ValueError(f"{text} names {len(matches)} runs; give one of {_spell(matches)}")
    if Path(text).is_dir():
        raise ValueError(f"{text} is not a run: it has no {FILE}; there are {_spell(folders)}")
    raise ValueError(f"found no run {str(text)!r} under {root}; there are {_spell(folders)}")


def known_runs(root: str | Path = ROOT) -> list[KnownRun]:
    """Every run under `root`, by model and name. Those whose manifest cannot be read are named on stderr."""
    found = []
    for folder in run_folders(root):
        try:
            found.append(describe_run(folder))
        except (ValueError, OSError) as error:
            print_note(f"framelens runs: left out: {error}")
    return found


def describe_run(folder: Path) -> KnownRun:
    """One run folder; ValueError or OSError where its manifest cannot be read."""
    manifest = Manifest.read(folder / FILE)
    return KnownRun(
        folder,
        manifest.kind,
        manifest.model.name if isinstance(manifest, ProbeManifest) else folder.parent.name,
        manifest.complete,
        manifest.created,
        spell_settings(manifest.command),
        _verdict(folder),
        sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
    )


def spell_settings(command: str) -> str:
    """The options of a command without those of `NOT_SETTINGS`, for example `--clips 4 --quick`."""
    kept, is_left_out = [], True  # the words before the first option name the command
    for word in shlex.split(command):
        if word.startswith("--"):
            is_left_out = word.split("=")[0] in NOT_SETTINGS
        if not is_left_out:
            kept.append(word)
    return shlex.join(kept)


def _verdict(folder: Path) -> str | None:
    if not (folder / PLAN).exists():
        return None
    try:
        return Plan.read(folder / PLAN).verdict
    except ValueError as error:
        print_note(f"framelens runs: {error}")
        return None


def _spell(folders: list[Path]) -> str:
    names = [f"{folder.parent.name}/{folder.name}" for folder in folders]
    shown = ", ".join(names[:12])
    return f"{shown} and {len(names) - 12} more" if len(names) > 12 else shown or "none"
