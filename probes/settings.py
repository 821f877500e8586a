"""What a probe run was asked to do: checked before anything is loaded or written. Light: no torch."""

import math
from dataclasses import asdict, dataclass, fields

import analyses

MODES = ("teacher_forced", "free_running")
NETWORKS = ("trained", "random")


@dataclass(frozen=True)
class Settings:
    """Everything that decides the numbers of a run, together with the model."""

    clips: int = 8
    """Held-out clips."""
    frames: int | None = None
    """Frames per clip; None for as many as the model was trained on."""
    context: int = 4
    """Frames given before a free run; the first probed frame is the one after them."""
    probed: int = 3
    """Frames at which features and attention are read, evenly from `context` to the last."""
    steps: int = 20
    """Denoising steps per frame."""
    shift: float = 1.0
    """Shift of the sigma grid."""
    queries: int = 64
    """Queries per frame whose attention is read; all of them where a frame has no more tokens."""
    statistics: tuple[str, ...] = ()
    """Streaming statistics; empty for all."""
    videos: str | None = None
    """A file of videos/, or a video file or folder; None for what the model was trained on."""
    seed: int = 0
    """Decides the clips, the noise and the random network."""
    device: str = "cpu"
    dtype: str = "float32"

    def __post_init__(self):
        for name in ("clips", "probed", "steps"):
            _at_least(name, getattr(self, name), 1)
        _at_least("context", self.context, 1)
        _at_least("queries", self.queries, 2)
        _at_least("seed", self.seed, 0)
        if not 0 < self.shift < math.inf:
            raise ValueError(f"--shift must be positive and finite, got {self.shift}")
        if self.frames is not None and self.frames <= self.context:
            raise ValueError(
                f"--frames must exceed --context {self.context}, got {self.frames}: nothing is left to draw"
            )
        for name in self.statistics:
            if name not in analyses.names():
                raise ValueError(f"no statistic is called {name!r}; there are {', '.join(analyses.names())}")

    def slug(self) -> str:
        """A folder name for these settings: `default`, or what differs from it."""
        parts = []
        for field in fields(self):
            value = getattr(self, field.name)
            if value != field.default:
                text = "+".join(value) if isinstance(value, tuple) else str(value)
                parts.append(f"{field.name}-{text}".replace("/", "_"))
        return "_".join(parts) or "default"

    def describe(self) -> dict:
        """The settings as plain values."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ValueError(f"--{name} must be at least {least}, got {value}")
