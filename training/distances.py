"""How far the distribution of generated frames is from that of true ones, on features of a user's network.

distances = measure_distances(generated, true)        # features [clip frame d] of both

The Frechet distance compares means and covariances. The kernel distance is the unbiased squared maximum mean
discrepancy with KID's kernel (x . y / d + 1)^3. Frames of one clip are alike, so pairs of frames of the same
clip are left out of it, and intervals draw whole clips, the generated and the true ones together.
"""

import numpy as np
from jaxtyping import Float

from framelens.analyses.intervals import enough
from framelens.training.measures import DIGITS, ScoreMean

Features = Float[np.ndarray, "clip frame d"]
DRAWS, SEED = 200, 0
HALF_WIDTH = 1.96
"""Standard deviations of the bootstrap's draws on each side of the distance."""


def measure_distances(generated: Features, true: Features) -> dict[str, ScoreMean]:
    """Both distances with 95 % bootstrap intervals; ValueError where there are too few frames or clips."""
    require_enough(*true.shape)
    clips = len(true)
    blocks = kernel_blocks(generated, true)
    draws = np.random.default_rng(SEED).integers(clips, size=(DRAWS if enough(clips) else 0, clips))
    counts = [np.bincount(draw, minlength=clips).astype(float) for draw in draws]
    frechet = [frechet_distance(_rows(generated[draw]), _rows(true[draw])) for draw in draws]
    kernel = [1000 * kernel_distance(blocks, count) for count in counts if (count > 0).sum() > 1]
    found = 1000 * kernel_distance(blocks, np.ones(clips))
    return {
        "Frechet distance": _measure(frechet_distance(_rows(generated), _rows(true)), frechet, clips, 0.0),
        "kernel distance (x 1000)": _measure(found, kernel, clips, -np.inf),
    }


def require_enough(clips: int, frames: int, width: int) -> None:
    """ValueError where the covariance of the features cannot be estimated from these frames."""
    if clips < 2:
        raise ValueError(f"--features needs two clips or more, got --clips {clips}")
    if clips * frames <= width:
        raise ValueError(
            f"--features gives {width} numbers for each frame, and a Frechet distance needs more frames than "
            f"that: got {clips * frames} ({clips} clips of {frames}); raise --clips or give fewer features"
        )


def frechet_distance(one: Float[np.ndarray, "n d"], other: Float[np.ndarray, "m d"]) -> float:
    """|mean - mean'|^2 + tr(S + S' - 2 (S S')^(1/2)) of unbiased covariances; few frames make it larger."""
    apart = one.mean(axis=0) - other.mean(axis=0)
    first, second = (np.atleast_2d(np.cov(values, rowvar=False)) for values in (one, other))
    values, vectors = np.linalg.eigh(first)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    shared = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ second @ root), 0)).sum()
    return float(apart @ apart + np.trace(first) + np.trace(second) - 2 * shared)


def kernel_blocks(one: Features, other: Features) -> Float[np.ndarray, "clip clip"]:
    """k(x, x') + k(y, y') - k(x, y') - k(y, x'), mean over the frames of two clips."""
    clips, frames, width = one.shape

    def mean_kernel(a: Features, b: Features) -> np.ndarray:
        kernel = (_rows(a) @ _rows(b).T / width + 1) ** 3
        return kernel.reshape(clips, frames, clips, frames).mean(axis=(1, 3))

    crossed = mean_kernel(one, other)
    return mean_kernel(one, one) + mean_kernel(other, other) - crossed - crossed.T


def kernel_distance(blocks: np.ndarray, counts: Float[np.ndarray, " clip"]) -> float:
    """The mean of the blocks of two different clips, each clip counted so often; it may be below 0."""
    pairs = np.outer(counts, counts).astype(np.float64)
    np.fill_diagonal(pairs, 0)
    return float((pairs * blocks).sum() / pairs.sum())


def _measure(found: float, draws: list[float], clips: int, least: float) -> ScoreMean:
    if not draws:
        return ScoreMean(round(found, DIGITS), None, None, clips)
    half = HALF_WIDTH * float(np.std(draws, ddof=1))
    low, high = (round(end, DIGITS) for end in (max(least, found - half), found + half))
    return ScoreMean(round(found, DIGITS), low, high, clips)


def _rows(features: Features) -> Float[np.ndarray, "n d"]:
    return features.reshape(-1, features.shape[-1])
