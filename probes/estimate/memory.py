"""The bytes that a probe needs at once, by what uses them, computed from shapes.

    parts = room(run)
    sum(parts.values())                      # clips one after the other, on one device

What is in memory at the same time is added up; of what comes one after the other the largest part is added.
Left out: what the allocator keeps, kernels' workspace, the CUDA context (together a GB or less).
"""

from framelens.probes.chunk.chunk_probe import DRAWS
from framelens.probes.estimate.work import experiments_of
from framelens.probes.run.costs import claim_of, kept_bytes, shared_kept_bytes, shared_use
from framelens.probes.run.shape import NETWORK_COUNT, RunShape


def room(run: RunShape) -> dict[str, int]:
    """Bytes by what uses them; an experiment that the run leaves out uses none."""
    names = experiments_of(run)
    pasts, features = shared_kept_bytes(shared_use(claim_of(name, run).chunk for name in names), run)
    beside = {name: kept_bytes(name, run) for name in names}
    largest = max(names, key=lambda name: beside[name])
    return {
        f"weights of {NETWORK_COUNT} networks": NETWORK_COUNT * run.parameters * run.value_bytes,
        "past of the last chunk, kept for interventions": pasts,
        "features kept for reuse": features,
        f"largest experiment beside them: {largest}": beside[largest],
        "one pass": _pass_bytes(run),
    }


def _pass_bytes(run: RunShape) -> int:
    """Bytes of one block for all rows: the stream, queries, keys, values and the MLP, with float32 copies.

    Also the history of one layer with the chunk's own keys and values, and its sorted float32 copy where
    attention is read.
    """
    rows = max(run.batch, 2) * DRAWS
    stream = rows * run.tokens * (10 * run.d_model + 2 * run.mlp_width) * max(run.value_bytes, 4)
    history = min(run.chunks, run.seen or run.chunks) * run.tokens * run.d_model
    joined = 2 * rows * history * run.value_bytes if run.batch == 1 else 0
    return stream + max(joined, 3 * history * 4)
