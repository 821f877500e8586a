"""What a probe holds at once, in bytes, by what holds it: arithmetic on shapes.

    parts = room(run, Sizes(parameters=1_418_996_800, d_model=1536, mlp_width=8960, value_bytes=2))
    sum(parts.values())                      # of one clip after the other, on one device

Everything that lives together is added up, the largest of what comes after each other beside it. Left out:
what the allocator keeps, kernels' workspace, the CUDA context (together a GB or less).
"""

from dataclasses import dataclass

from framelens.analyses.statistics.feature_pca import EXACT_TOKENS, STEPS
from framelens.analyses.statistics.step_similarity import Statistic as Similarity
from framelens.analyses.sums.low_rank import RANK
from framelens.analyses.sums.sketch import BUCKETS, TOKEN_BUCKETS
from framelens.probes import experiments
from framelens.probes.chunk.stage import DRAWS
from framelens.probes.estimate.passes import NETWORK_COUNT, STAGED, Run


@dataclass(frozen=True)
class Sizes:
    """What a network weighs, and how wide it is."""

    parameters: int
    d_model: int
    mlp_width: int
    value_bytes: int
    """Of a weight, a key, a feature."""
    text_tokens: int = 0
    seen: int | None = None
    """Chunks that a bounded history holds with the one at hand; None for all."""


def room(run: Run, sizes: Sizes) -> dict[str, int]:
    """Bytes by what holds them; an experiment that is not asked for holds nothing."""
    wanted = set(run.settings.experiments or experiments.names())
    is_staged = bool(wanted & set(STAGED))
    stages = _stages(run, sizes, wanted) if is_staged else 0
    beside = {
        "rollouts": _cache(run, sizes, run.chunks, run.branches) + _statistics(run, sizes),
        "noise_invariance": 2 * _cache(run, sizes, run.chunks) + 3 * _residual(run, sizes, 1, 4),
        "readout": _cache(run, sizes, run.chunks) + _residual(run, sizes, 1, 4),
        "mask_drift": 3 * run.chunks * _residual(run, sizes) if run.is_bidirectional else 0,
        **({name: _intervention(run, sizes) for name in STAGED}),
    }
    largest = max((name for name in wanted if name in beside), key=lambda name: beside[name])
    return {
        f"weights of {NETWORK_COUNT} networks": NETWORK_COUNT * sizes.parameters * sizes.value_bytes,
        "past of the last chunk, kept for interventions": stages,
        "features kept for reuse": _kept_features(run, sizes, wanted),
        f"largest experiment beside them: {largest}": beside[largest],
        "one pass": _pass(run, sizes),
    }


def _cache(run: Run, sizes: Sizes, chunks: int, rows: int = 1) -> int:
    """Keys and values of so many chunks in every layer that reads them, as far as they have grown."""
    capacity = 1
    while capacity < chunks:
        capacity *= 2
    capacity = min(capacity, sizes.seen or capacity)
    width = sizes.d_model * sizes.value_bytes
    own = 2 * rows * run.encoding_layers * capacity * run.tokens * width
    return own + 2 * rows * run.layers * sizes.text_tokens * width


def _stages(run: Run, sizes: Sizes, wanted: set[str]) -> int:
    """The contexts that interventions start from: each network's own past, another clip's for a while."""
    if run.batch == 1:  # one for all rows, behind which nothing is written
        own, chunks, other = 1, run.chunks - 1, 1
    else:
        own, chunks, other = sum({DRAWS, 2 * DRAWS, run.batch * DRAWS}), run.chunks, DRAWS
    networks = NETWORK_COUNT if {"cut", "leave_one_out"} & wanted else 1
    others = other if {"controls", "reuse_controls"} & wanted else 0
    return _cache(run, sizes, chunks, networks * own + others)


def _residual(run: Run, sizes: Sizes, rows: int = 1, value_bytes: int | None = None) -> int:
    """The residual stream at every layer's two ends, of one chunk."""
    width = sizes.d_model * (value_bytes or sizes.value_bytes)
    return rows * (run.layers + 1) * run.tokens * width


def _features(run: Run, sizes: Sizes, rows: int = DRAWS) -> int:
    """What one recorded pass keeps: the residual stream and the cross-frame part of attention."""
    return _residual(run, sizes, rows) + rows * run.layers * run.tokens * sizes.d_model * sizes.value_bytes


def _kept_features(run: Run, sizes: Sizes, wanted: set[str]) -> int:
    steps = set(run.settings.start_steps) | {0} if "reuse" in wanted else set()
    steps |= {0} if "controls" in wanted else set()
    other = bool({"controls", "reuse_controls"} & wanted)
    return (len(steps) + other) * _features(run, sizes)


def _intervention(run: Run, sizes: Sizes) -> int:
    """A recorded pass in use, and the stored parts of attention for each row of a batch."""
    rows = run.batch * DRAWS
    stored = rows * run.layers * run.tokens * sizes.d_model * sizes.value_bytes
    return _features(run, sizes, rows) + stored


def _statistics(run: Run, sizes: Sizes) -> int:
    """What the streaming statistics hold of the frame at hand."""
    settings, tokens, width = run.settings, run.tokens, sizes.d_model
    whole = tokens if settings.tokens is None else min(tokens, settings.tokens)
    similar = _of_similarity(whole, sizes)
    if whole < tokens:
        similar += 2 * _of_similarity(whole // 2, sizes)
    held = len(settings.watched_steps) * (run.layers + 1) * similar
    if tokens > EXACT_TOKENS and width > 4 * RANK:
        picture = 4 * ((tokens + width) * RANK + width)
    else:
        picture = tokens * width * sizes.value_bytes
    return held + min(STEPS, len(settings.watched_steps)) * run.layers * picture + _hashes(whole, width)


def _of_similarity(tokens: int, sizes: Sizes) -> int:
    """One step's features at one layer, as they are or as sketches in half precision."""
    if tokens <= Similarity().exact_tokens:
        return tokens * sizes.d_model * sizes.value_bytes
    return 2 * (BUCKETS + (TOKEN_BUCKETS // 2) ** 2) + 4 * (tokens + sizes.d_model)


def _hashes(tokens: int, width: int) -> int:
    """Random signs of every entry, where sketches are made."""
    return 4 * tokens * width if tokens > Similarity().exact_tokens else 0


def _pass(run: Run, sizes: Sizes) -> int:
    """One block at a time: the stream, queries, keys, values and the MLP of all rows, with their float32
    copies; the history of one layer joined to the chunk's own; and in float32, sorted, where it is read."""
    rows = max(run.batch, 2) * DRAWS
    stream = rows * run.tokens * (10 * sizes.d_model + 2 * sizes.mlp_width) * max(sizes.value_bytes, 4)
    history = min(run.chunks, sizes.seen or run.chunks) * run.tokens * sizes.d_model
    joined = 2 * rows * history * sizes.value_bytes if run.batch == 1 else 0
    return stream + max(joined, 3 * history * 4)
