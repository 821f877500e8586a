"""A plan: the verdict on a probed model with its evidence, where it would be split, and what that saves.

    plan = Plan.read(Path("runs/dense-tiles/default/plan.json"))
    plan.verdict, plan.architecture, plan.prediction

Its numbers are None where JSON has none: an interval over too few clips, a value that was not measured.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from framelens.records import typed

FILE = "plan.json"
KIND = "plan"
AGAIN = "framelens plan --model X --steps T --history F"


@dataclass(frozen=True)
class PlannedModel:
    """The model that was probed."""

    name: str
    network: str
    layers: int
    tokens_per_frame: int
    frames_per_chunk: int

    @property
    def unit(self) -> str:
        """What it makes at a time: a frame, or a chunk of several."""
        return "frame" if self.frames_per_chunk == 1 else "chunk"


@dataclass(frozen=True)
class PlannedRun:
    """The run whose evidence was read."""

    folder: str
    clips: int
    quick: bool
    films: int = 0
    """The films that the clips are parts of; 0 where clips share no films."""
    is_one_film: bool = False


@dataclass(frozen=True)
class PlannedTest:
    """One question that was put to the run, and its answer."""

    name: str
    question: str
    measured: str
    beside: str
    value: float | None
    low: float | None
    high: float | None
    threshold: float
    side: str
    asked: str
    because: str
    failing: str
    passed: bool | None
    kind: str


@dataclass(frozen=True)
class PlannedSplit:
    """Which layers the encoder has, and which run at every step."""

    encoder_layers: int
    head: tuple[int, ...]
    tail: tuple[int, ...]
    decoder: tuple[int, ...]
    threshold: float
    """The kept share of the past's benefit that is required."""
    is_provisional: bool
    dispensable: tuple[int, ...]


@dataclass(frozen=True)
class PlannedSweep:
    """The answers at other thresholds; a depth of one more than there are layers says that none is enough."""

    threshold: tuple[float, ...]
    encoder_layers: tuple[float | None, ...]
    low: tuple[float | None, ...]
    high: tuple[float | None, ...]
    live: tuple[float | None, ...]
    decoder: tuple[tuple[int, ...] | None, ...]
    spread: int | None
    tracks_threshold: bool | None
    said: str


@dataclass(frozen=True)
class PlannedInterval:
    """A mean and the ends of its interval."""

    mean: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class PlannedClock:
    """The prediction by the measured rates of a machine."""

    speed_up: float
    frame_seconds: float
    dense_frame_seconds: float
    device_name: str
    device: str
    dtype: str
    threads: int
    measured: str
    machine: dict[str, Any]


@dataclass(frozen=True)
class PlannedNeighbour:
    """A split near the one that was chosen, or that one."""

    encoder_layers: int
    decoder_layers: int
    chosen: bool
    speed_up: float
    cache_bytes: float
    parameters: float
    clock_speed_up: float | None
    kept: PlannedInterval | None


@dataclass(frozen=True)
class Prediction:
    """What a split saves in one use of the model: by operations, and by a machine's rates where known."""

    steps: int
    history: int
    tokens: int
    batch: int
    value_bytes: int
    fusion: str
    speed_up: float
    bound: float
    cache_bytes: float
    dense_cache_bytes: float
    frame_flops: float
    dense_frame_flops: float
    parameters: float
    dense_parameters: float
    clock: PlannedClock | None
    nearby: tuple[PlannedNeighbour, ...]
    fetched_once: float | None = None
    """Speed-up by operations without training, where the encoder's layers fetch the past once."""


@dataclass(frozen=True)
class Plan:
    """All that plan.json holds."""

    created: str
    command: str
    """Empty where it was made at the end of a run, for use as in the run."""
    model: PlannedModel
    run: PlannedRun
    decision: str
    """How the tests give the verdict, in words."""
    verdict: str
    """separable, partly separable, not separable or open."""
    reason: str
    would_decide: str
    tests: tuple[PlannedTest, ...]
    remarks: tuple[str, ...]
    split: PlannedSplit | None
    sweep: PlannedSweep | None
    curves: dict[str, Any]
    architecture: dict[str, Any] | None
    """What models/scd.py's config and training take."""
    acting: str | None
    prediction: Prediction | None

    @classmethod
    def read(cls, path: Path) -> "Plan":
        """The plan in that file; FileNotFoundError or ValueError, in one line, where there is none."""
        return typed.read(cls, path, KIND, AGAIN)

    def write(self, path: Path) -> Path:
        """Writes it as JSON."""
        return typed.write(path, KIND, self)


SPLIT_WORLDS = ("tiles", "digits")
"""The worlds that have such a recipe."""


def split_recipe(videos: str) -> str:
    """The name of the training recipe that separates the dense network of a world and fine-tunes it."""
    return f"split-{videos}"
