"""What an experiment says that it costs, and what the chunk costs that interventions share.

def evaluations(run: RunShape) -> Evaluations:            # in the file of an experiment
    return Evaluations(run.steps * DRAWS * run.layers, chunk=ChunkUse(features=frozenset({0})))

claim_of("cut", run)                                       # of a registered experiment
shared_evaluations([use, ...], run)                       # of the chunk, once for all that use it
"""

from collections.abc import Iterable
from dataclasses import dataclass
from types import ModuleType

from framelens.probes import experiments
from framelens.probes.chunk.chunk_probe import DRAWS
from framelens.probes.run.shape import RunShape


@dataclass(frozen=True)
class ChunkUse:
    """What an experiment needs of the chunk (`ProbedClip.chunk_probe`) that experiments share."""

    networks: int = 1
    """Networks that draw the chunk: 1 for the trained one alone."""
    velocities: bool = True
    """Whether the plain velocities are compared with."""
    features: frozenset[int] = frozenset()
    """Steps of the plain path whose features are read."""
    other_past: bool = False
    """Whether features in the other clip's past are read."""

    def __or__(self, other: "ChunkUse") -> "ChunkUse":
        return ChunkUse(
            max(self.networks, other.networks),
            self.velocities or other.velocities,
            self.features | other.features,
            self.other_past or other.other_past,
        )


@dataclass(frozen=True)
class Evaluations:
    """Layer evaluations of one experiment on one clip: layers run, times rows of the batch."""

    denoising: int
    """In its own passes that denoise, or that make a whole clip at once."""
    encoding: int = 0
    """In its own passes that take finished frames into memory."""
    chunk: ChunkUse | None = None
    """What it asks of the shared chunk beside them; None for an experiment that does without."""
    clips: int | None = None
    """How many clips of a run, the first ones, it measures; None for all."""

    def per_clip(self, clips: int) -> tuple[int, int]:
        """Denoising and encoding, as a mean over that number of clips."""
        share = 1 if self.clips is None else min(1, self.clips / clips)
        return round(self.denoising * share), round(self.encoding * share)


def claim_of(name: str, run: RunShape) -> Evaluations:
    """What that experiment says that it evaluates. ValueError for a file that does not say it."""
    module = experiments.load(name)
    if not hasattr(module, "evaluations"):
        raise ValueError(
            f"the experiment {name} does not say what it costs; give its file a function evaluations(run) "
            "that returns Evaluations (framelens/probes/run/costs.py)"
        )
    return module.evaluations(run)


def kept_bytes(name: str, run: RunShape) -> int:
    """What that experiment holds beside the weights and the shared chunk, in bytes."""
    module: ModuleType = experiments.load(name)
    own = module.kept_bytes(run) if hasattr(module, "kept_bytes") else 0
    return own + (_intervention_bytes(run) if claim_of(name, run).chunk else 0)


def shared_use(uses: Iterable[ChunkUse | None]) -> ChunkUse | None:
    """What any of them asks of the chunk; None where none of them uses it."""
    asked = [use for use in uses if use is not None]
    if not asked:
        return None
    first, *others = asked
    for use in others:
        first |= use
    return first


def shared_evaluations(use: ChunkUse | None, run: RunShape) -> Evaluations:
    """The plain chunk and velocities of each network, features, and the past that all of it starts from."""
    if use is None:
        return Evaluations(0)
    velocities = use.networks * run.levels if use.velocities else 0
    passes = use.networks * run.steps + velocities + len(use.features) + use.other_past
    one, past = run.batch == 1, run.chunks - 1
    own = run.encoding(past, 1 if one else sum(_sizes(run)))
    other = run.encoding(past, 1 if one else DRAWS) if use.other_past else 0
    return Evaluations(DRAWS * run.layers * passes, use.networks * own + other)


def shared_kept_bytes(use: ChunkUse | None, run: RunShape) -> tuple[int, int]:
    """The contexts that interventions start from, and the features that are kept for them."""
    if use is None:
        return 0, 0
    if run.batch == 1:  # one context for all rows, after which nothing is written
        own, chunks, other = 1, run.chunks - 1, 1
    else:
        own, chunks, other = sum(_sizes(run)), run.chunks, DRAWS
    rows = use.networks * own + (other if use.other_past else 0)
    features = (len(use.features) + use.other_past) * _feature_bytes(run, DRAWS)
    return run.cache_bytes(chunks, rows), features


def _sizes(run: RunShape) -> set[int]:
    """Rows of the batches for which the past is encoded: plain, of two kinds, of conditions."""
    return {DRAWS, 2 * DRAWS, run.batch * DRAWS}


def _cross_bytes(run: RunShape, rows: int) -> int:
    """The cross-frame part of attention in every layer."""
    return rows * run.layers * run.tokens * run.d_model * run.value_bytes


def _feature_bytes(run: RunShape, rows: int) -> int:
    """What one recorded pass keeps: the residual stream and the cross-frame part of attention."""
    return run.residual_bytes(rows) + _cross_bytes(run, rows)


def _intervention_bytes(run: RunShape) -> int:
    """A recorded pass in use, and the stored parts of attention for each row of a batch."""
    rows = run.batch * DRAWS
    return _feature_bytes(run, rows) + _cross_bytes(run, rows)
