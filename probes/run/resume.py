"""Whether a run that exists is resumed: only if it was computed on the same, or nothing was measured yet.

resume = Resume(fresh=False, same_code=False)
existing = resume.find(folder, manifest)                # None where there is nothing to resume
resume.require_same(folder, existing, manifest, is_finished=False)
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from framelens.probes.run.settings import OWN_FILE
from framelens.records.identity import Differences, Identity, compare, describe_differences
from framelens.records.manifest import FILE, ProbeManifest
from framelens.records.notes import print_note

COMPUTING = ("torch", "transformer-lens", "numpy", "av")
"""Packages whose version may change numbers."""
ORIGIN = ("name", "file", "sha256", "training", "repo", "revision")
"""Where a model came from; what it computes follows from its weights, its code and the other fields."""
NAMED = {"settings": "other settings", "sigmas": "other noise levels"}
NEW = "--run NAME starts another run, --fresh measures again and keeps the old one under another name"


@dataclass(frozen=True)
class Resume:
    """How a run that exists is treated: `fresh` replaces it, `same_code` resumes it despite other code."""

    fresh: bool = False
    same_code: bool = False

    def find(self, path: Path, now: ProbeManifest) -> ProbeManifest | None:
        """The manifest of the run in that folder, None if there is nothing to resume.

        A fresh run renames the folder that exists. A run without results is resumed if it was started on the
        same, else replaced. ValueError for a damaged manifest, and for results without one.
        """
        has_results, has_manifest = _has_results(path), (path / FILE).exists()
        if not (has_results or has_manifest):
            return None
        if self.fresh:
            _rename(path)
            return None
        if not has_manifest:
            raise ValueError(f"{path} has results but no {FILE}, so it cannot be resumed; {NEW}")
        existing = ProbeManifest.read(path / FILE)
        if not has_results and _is_other(existing, now):
            (path / OWN_FILE).unlink(missing_ok=True)
            return None
        if existing.identity is None:
            raise ValueError(
                f"{path} is of an older version, which did not store what it was computed on; {NEW}"
            )
        return existing

    def require_same(self, path: Path, before: ProbeManifest, now: ProbeManifest, is_finished: bool) -> None:
        """ValueError, in one line, that says what differs.

        Other code of framelens or other versions alone are a note for a finished run: nothing is added to it.
        """
        found, versions = _compare(before, now), _compare_versions(before, now)
        numbers, code = [*_compare_settings(before, now), *found.numbers], [*found.code, *versions]
        is_allowed = self.same_code or (is_finished and not found.code)
        if numbers or (code and not is_allowed):
            offer = "" if numbers else "; --same-code resumes it, if its numbers do not depend on the change"
            raise ValueError(
                f"{path} was computed on something else: {'; '.join([*numbers, *code])}; {NEW}{offer}"
            )
        if code:
            rest = f"it is finished; {NEW}" if is_finished else "each clip's files name theirs"
            print_note(f"framelens probe: {path} was computed with other code: {'; '.join(code)}; {rest}")
        elif found.texts:
            files = ", ".join(found.texts)
            print_note(f"framelens probe: {path} is resumed: in {files} only comments or docstrings differ")


def require_unchanged(first: Identity | None, own: Identity | None) -> None:
    """ValueError if this process has other weights or inputs than the first process of the run."""
    found = [] if first is None or own is None else compare(first, own).numbers
    if found:
        raise ValueError(
            f"processes of this run loaded different things: {'; '.join(found)}; do not change files while "
            "a run is measured, and seed the weights that an adapter makes"
        )


def measured_by(manifest: ProbeManifest) -> dict[str, str]:
    """The code that measures now, as attributes of a clip's files: framelens, its commit, torch."""
    stated = {
        "framelens": None if manifest.identity is None else manifest.identity.framelens,
        "git_commit": manifest.git_commit,
        "torch": manifest.versions.get("torch"),
    }
    return {name: value for name, value in stated.items() if value is not None}


def _has_results(path: Path) -> bool:
    return any(path.glob("clips/[0-9]*/*.nc")) or any(path.glob("*.nc"))


def _is_other(before: ProbeManifest, now: ProbeManifest) -> bool:
    """Whether anything differs but comments and docstrings."""
    if before.identity is None:
        return True
    found = _compare(before, now)
    return any([found.numbers, found.code, _compare_settings(before, now), _compare_versions(before, now)])


def _compare(before: ProbeManifest, now: ProbeManifest) -> Differences:
    assert before.identity is not None and now.identity is not None
    return compare(before.identity, now.identity)


def _compare_settings(before: ProbeManifest, now: ProbeManifest) -> list[str]:
    was, wanted = asdict(before), asdict(now)
    found = [
        f"{words} ({describe_differences(was[name], wanted[name])})"
        for name, words in NAMED.items()
        if was[name] != wanted[name]
    ]
    models = [_without_origin(each["model"]) for each in (was, wanted)]
    if models[0] != models[1]:
        found.insert(0, f"another model ({describe_differences(*models)})")
    return found


def _without_origin(about: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in about.items() if name not in ORIGIN}


def _compare_versions(before: ProbeManifest, now: ProbeManifest) -> list[str]:
    """Other versions of Python and of packages that compute, and other code of framelens."""
    was, wanted = _versions(before), _versions(now)
    return [] if was == wanted else [describe_differences(was, wanted)]


def _versions(manifest: ProbeManifest) -> dict[str, Any]:
    stated = {name: manifest.versions.get(name) for name in COMPUTING}
    python = ".".join(str(manifest.versions.get("python")).split(".")[:2])
    assert manifest.identity is not None
    return {"framelens": manifest.identity.framelens, "python": python} | stated


def _rename(path: Path) -> None:
    """Renames a run's folder after the time at which it was created."""
    try:
        created = ProbeManifest.read(path / FILE).created[:19].replace(":", "-")
    except (OSError, ValueError):
        created = "old"
    kept, count = path.with_name(f"{path.name}-{created}"), 1
    while kept.exists():
        count += 1
        kept = path.with_name(f"{path.name}-{created}-{count}")
    path.rename(kept)
    print_note(f"framelens probe: the old run is kept as {kept}")
