"""A part of a pipeline, as its VAE or its text encoder: on disk, or fetched from the hub without the rest.

part_of("pipeline/", "vae").path                                # pipeline/vae
part_of("org/name@main", "text_encoder", "tokenizer").path      # fetched; the tokenizer lies beside it
"""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from framelens.models.loading.locate import Place, find
from framelens.records import read_json_object
from framelens.records.extras import extra

WANTED = ("*.json", "*.txt", "*.model", "*.safetensors")


@dataclass(frozen=True)
class Part:
    """Where a part lies: its folder, or the file of its weights; from the hub, with the commit."""

    name: str
    path: Path
    repo: str | None = None
    revision: str | None = None

    def describe(self) -> dict[str, Any]:
        """What a file made with it says of it."""
        about = {"name": self.name, "repo": self.repo, "revision": self.revision}
        return {key: value for key, value in about.items() if value is not None}


def part_of(name: str, folder: str, *beside: str) -> Part:
    """The part called `folder` of the pipeline of that name, or that folder or file itself, if it is named.

    Folders `beside` it are fetched with it. Raises ValueError or OSError with one line.
    """
    path = Path(name)
    if path.exists():
        return Part(name, path if path.is_file() else _find_folder(name, path, folder))
    if "/" not in name:
        raise FileNotFoundError(f"there is no folder or file {name}, and a hub id would be org/name")
    place = find(name, {})
    if place.kind != "hub":
        raise FileNotFoundError(f"{name} is no pipeline, folder or file that holds a {folder}")
    if place.path.suffix:
        from framelens.models.loading.hub import fetched

        found = fetched(place)
        return Part(name, found.path, found.repo, found.revision)
    return _fetch(name, place, folder, beside)


def config_of(path: Path) -> dict[str, Any]:
    """A folder's config.json; ValueError or FileNotFoundError where there is none that can be read."""
    file = path / "config.json"
    if not file.exists():
        raise FileNotFoundError(f"{path} has no config.json")
    return read_json_object(file)


def _find_folder(name: str, path: Path, folder: str) -> Path:
    if (path / folder).is_dir():
        return path / folder
    if (path / "config.json").exists():
        return path
    raise FileNotFoundError(f"{name} has neither a folder {folder}/ nor a config.json of its own")


def _fetch(name: str, place: Place, folder: str, beside: tuple[str, ...]) -> Part:
    """The part on disk, downloaded where it is not there yet: of a pipeline, or a repository's only model."""
    from framelens.models.loading.hub import commit_of

    inside = PurePosixPath(place.path.as_posix())
    base = inside.parent if inside.name == folder else inside
    wanted = [str(base / part / pattern) for part in (folder, *beside) for pattern in WANTED]
    local = _snapshot(place, [*wanted, str(base / "config.json")])
    if not (local / base / folder).is_dir() and (local / base / "config.json").exists():
        _snapshot(place, [str(base / pattern) for pattern in WANTED])
    path = _find_folder(name, local / base, folder)
    return Part(name, path, place.repo, commit_of(path, place))


def _snapshot(place: Place, wanted: list[str]) -> Path:
    with extra("families"):
        import huggingface_hub

    from framelens.models.loading.hub import answered

    assert place.repo is not None
    with answered(place):
        return Path(
            huggingface_hub.snapshot_download(place.repo, revision=place.revision, allow_patterns=wanted)
        )
