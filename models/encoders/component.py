"""A part of a pipeline, such as its VAE or text encoder: on disk, or fetched from the hub without the rest.

part_of("pipeline/", "vae").path                                # pipeline/vae
part_of("org/name@main", "text_encoder", "tokenizer").path      # fetched, with the tokenizer beside it
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
    """The place of a part: its folder or its file of weights; `revision` is the hub's commit."""

    name: str
    path: Path
    repo: str | None = None
    revision: str | None = None

    def describe(self) -> dict[str, Any]:
        """The identity of this part, for files that were made with it."""
        about = {"name": self.name, "repo": self.repo, "revision": self.revision}
        return {key: value for key, value in about.items() if value is not None}


def part_of(name: str, folder: str, *beside: str) -> Part:
    """The part `folder` of the pipeline `name`; `name` may also be the part's own folder or file.

    Folders `beside` it are fetched too. Raises ValueError or OSError with one line.
    """
    path = Path(name)
    if path.exists():
        return Part(name, path if path.is_file() else _find_folder(name, path, folder))
    if "/" not in name:
        raise FileNotFoundError(f"{name} does not exist; expected a folder, a file or a hub id org/name")
    place = find(name, {})
    if place.kind != "hub":
        raise FileNotFoundError(f"{name} is not a pipeline, folder or file with a {folder}")
    if place.path.suffix:
        from framelens.models.loading.hub import fetch

        found = fetch(place)
        return Part(name, found.path, found.repo, found.revision)
    return _fetch(name, place, folder, beside)


def config_of(path: Path) -> dict[str, Any]:
    """The values of a folder's config.json; ValueError or FileNotFoundError if it cannot be read."""
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
    """The part on disk, downloaded if missing; the repository is a pipeline or holds only this part."""
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

    from framelens.models.loading.hub import translate_errors

    assert place.repo is not None
    with translate_errors(place):
        return Path(
            huggingface_hub.snapshot_download(place.repo, revision=place.revision, allow_patterns=wanted)
        )
