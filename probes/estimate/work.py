"""Layer evaluations per clip of a run, by experiment; each experiment states its own in its file.

evaluations(run)["reuse"]                # layers run, times rows of the batch
"""

from framelens.probes import experiments
from framelens.probes.run.costs import claim_of, shared_evaluations, shared_use
from framelens.probes.run.shape import RunShape

CHUNK, MEMORY = "chunk probe", "memory"
"""Lines besides those of experiments: the chunk that interventions share, encoding of finished frames."""


def experiments_of(run: RunShape) -> list[str]:
    """The experiments that the settings name; all if they name none."""
    return list(run.settings.experiments or experiments.names())


def evaluations(run: RunShape) -> dict[str, int]:
    """Layer evaluations of one clip by experiment of the run, as a mean over its clips.

    `chunk probe` is the chunk that interventions share, `memory` the encoding of finished frames. ValueError
    for an experiment without a function `evaluations`.
    """
    claims = {name: claim_of(name, run) for name in experiments_of(run)}
    use = shared_use(claim.chunk for claim in claims.values())
    shared = shared_evaluations(use, run)
    each = {name: claim.per_clip(run.settings.clips) for name, claim in claims.items()}
    found = {name: denoising for name, (denoising, _) in each.items()}
    if use is not None:
        found[CHUNK] = shared.denoising
    found[MEMORY] = shared.encoding + sum(encoding for _, encoding in each.values())
    return found


def flops_of_pass(run: RunShape, is_rollout: bool) -> float:
    """Operations of one pass of a chunk through the layers that denoise: matrix products and attention.

    The past is that of the last chunk; in rollouts that of an average chunk.
    """
    d, n = run.d_model, run.tokens
    chunks = (run.chunks + 1 + run.settings.context // run.chunk) / 2 if is_rollout else run.chunks
    keys = min(chunks, run.seen or chunks) * n + run.text_tokens
    weights = 6 * d * d if run.text_tokens else 4 * d * d
    return run.layers * n * (2 * (weights + 2 * d * run.mlp_width) + 4 * keys * d)
