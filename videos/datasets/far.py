"""Lists of clips as FAR and SCD publish them: films, or latents of FAR's DC-AE.

    minecraft_latent/minecraft_train.json, minecraft_latent/training/...
    minecraft/minecraft_val.json, minecraft/validation/...

A list is JSON: [{"video_path": ..., "latent_path": ..., "action_path": ..., "label": ...}, ...], where a clip
has latents (.pt, [f c h w], read first) or a film, and may have actions (.npz) or a class. Paths are
absolute, begin in the folder, or begin above it. Latents are multiplied by the DC-AE's scaling factor, as
networks of FAR and SCD take them. Without a list for validation the last tenth of the clips is kept for it.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from framelens.videos import Clips, latents
from framelens.videos.datasets._recorded import (
    RecordedClips,
    StoredRecording,
    count_actions,
    cut_actions,
    first_of,
    read_film,
    require_some,
    size_of,
)

TRAINING, VALIDATION = "*_train.json", "*_val.json"
PATHS, BEGINNING = ("latent_path", "video_path"), 10_000
"""The names of a clip's places, of which the first is read, and characters of a list in which one is seen."""
SCALING = 0.2889
"""The factor of FAR's DC-AE (`scaling_factor` in its configuration)."""
KEPT = 10
"""One clip of this number is kept for validation where no list names clips for it."""


def recognise(folder: Path) -> bool:
    """Whether the folder has a list of clips for training, by the beginning of the file."""
    file = next(folder.glob(TRAINING), None)
    if file is None or not file.is_file():
        return False
    with file.open(encoding="utf-8", errors="replace") as opened:
        begin = opened.read(BEGINNING)
    return any(f'"{name}"' in begin for name in PATHS)


def open_folder(folder: Path, side: int | None) -> RecordedClips:
    """The clips of the lists, films in frames of `side` x `side` pixels or as they are stored."""
    lists = sorted(folder.glob(TRAINING))
    if not lists:
        raise FileNotFoundError(f"{folder / TRAINING} is missing: expected a list of FAR or SCD")
    training = list(_read_list(lists[0], folder))
    require_some(training, lists[0], "a list of clips")
    kept = sorted(folder.glob(VALIDATION))
    if kept:
        validation = list(_read_list(kept[0], folder))
        require_some(validation, kept[0], "a list of clips")
    else:
        count = max(1, len(training) // KEPT)
        training, validation = training[:-count], training[-count:]
        require_some(training, lists[0], "two clips or more")
    return ListedClips(training, validation, side)


class ListedClips(RecordedClips):
    """The clips of FAR's lists: all films, or all latents."""

    def __init__(self, training: list[StoredRecording], validation: list[StoredRecording], side: int | None):
        self.side, first = side, training[0].path
        self.holds_latents = _is_latent(first)
        if self.holds_latents:
            if side is not None:
                raise ValueError(f"{first} holds latents, which are not resized: leave out @{side}")
            shape = latents.read_frames(first).shape[1:]
        else:
            shape = (3, *(size_of(first) if side is None else (side, side)))
        actions = [each.beside for each in training if each.beside is not None]
        labels = [each.label for each in training + validation if each.label is not None]
        conditions = count_actions(actions) if actions else max(labels, default=-1) + 1
        super().__init__(training, validation, shape, conditions)

    def read(self, recording: StoredRecording, frames: int, start: float) -> Clips:
        """The frames, their actions, and the class."""
        path = recording.path
        if _is_latent(path):
            stored = latents.read_frames(path)
            first = first_of(len(stored), frames, start, path)
            video = SCALING * stored[first : first + frames]
        else:
            first, video = read_film(
                path, frames, start, None if self.side is None else (self.side, self.side)
            )
        label = None if recording.label is None else np.asarray(recording.label)
        return Clips(video, cut_actions(recording.beside, first, frames), labels=label)


def _is_latent(path: Path) -> bool:
    return path.suffix == ".pt"


def _read_list(file: Path, folder: Path) -> Iterator[StoredRecording]:
    """The recordings of a list. ValueError for another file, FileNotFoundError for the first missing one."""
    try:
        entries = json.loads(file.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{file} is not JSON: {error}") from None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"{file} holds no list of clips")
    for number, entry in enumerate(entries):
        path = next((entry[name] for name in PATHS if entry.get(name)), None)
        if not isinstance(path, str):
            raise ValueError(f"{file}: clip {number} has neither latent_path nor video_path")
        yield StoredRecording(
            _find(path, folder, file), _find_actions(entry, folder, file), entry.get("label")
        )


def _find_actions(entry: Mapping[str, Any], folder: Path, file: Path) -> Path | None:
    return _find(entry["action_path"], folder, file) if entry.get("action_path") else None


def _find(name: str, folder: Path, file: Path) -> Path:
    """The file of that name: as it is, in the folder, or with leading folders of the name left out."""
    path = Path(name)
    places = [path] if path.is_absolute() else []
    places += [folder.joinpath(*path.parts[first:]) for first in range(len(path.parts))]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise FileNotFoundError(f"{name} is missing, which {file} names: download or extract it again")
    return found
