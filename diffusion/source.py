"""Where a model came from: its file, the metadata of that, its commit.

source = traits(model).source
source.metadata.get("videos")
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from framelens.records.checks import MOST_FRAMES
from framelens.records.identity import CodeFile


@dataclass(frozen=True)
class Source:
    """Where a loaded model came from: its file, the SHA-256 of that, its metadata, its commit."""

    file: Path = Path()
    sha256: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    repo: str | None = None
    revision: str | None = None
    weights: str = ""
    """The SHA-256 of all parameters and buffers, as they were loaded."""
    code: tuple[CodeFile, ...] = ()
    """The source files of an adapter."""

    @property
    def videos(self) -> str:
        """The videos that the model was trained on. ValueError if the file does not store this."""
        return self._require_stated(self.metadata.get("videos"))

    @property
    def frames(self) -> int:
        """The number of frames in its training clips. ValueError if the file does not store this."""
        return self._require_stated(self.stated_frames)

    @property
    def stated_frames(self) -> int | None:
        """The frames in its training clips; None if that is not stored, ValueError if it cannot be."""
        recipe = (self.metadata.get("training") or {}).get("recipe") or {}
        frames = recipe.get("frames")
        if frames is not None and not (type(frames) is int and 1 <= frames <= MOST_FRAMES):
            raise ValueError(f"{self.file} is damaged: its training had clips of {frames!r} frames")
        return frames

    def _require_stated(self, value: Any) -> Any:
        if value is None:
            raise ValueError(f"{self.file} does not store what it was trained on; give --videos and --frames")
        return value
