"""How far the distribution of generated frames is from that of true ones, on features of a network.

distances = measure_distances(generated, true)        # features [clip frame d] of both

The Frechet distance compares means and covariances. Estimated from few frames it is too large, by about a
constant over the number of clips. The jackknife removes that part: groups of clips are left out in turn, and
the distance is extrapolated along 1 / clips to infinitely many, as FID_infinity does with subsets (Chong and
Forsyth 2020), and the spread over the groups gives the interval. A bootstrap cannot: it draws clips twice, so
its draws are too large once more. The plain distance, which others print, stands beside it.

The kernel distance is the unbiased squared maximum mean discrepancy with KID's kernel (x . y / d + 1)^3.
Frames of one clip are alike, so pairs of frames of the same clip are left out of it, and intervals draw whole
clips, the generated and the true ones together.
"""

import numpy as np
from jaxtyping import Float
from scipy.special import stdtrit

from framelens.analyses.intervals import enough
from framelens.training.measures import DIGITS, ScoreMean

Features = Float[np.ndarray, "clip frame d"]
DRAWS, SEED = 200, 0
HALF_WIDTH = 1.96
"""Standard deviations of the bootstrap's draws on each side of the kernel distance."""
GROUPS = 20
"""Groups of clips that the jackknife leaves out in turn; each clip by itself where there are fewer clips."""
CONFIDENCE = 0.975
"""Quantile of Student's t at the upper end of the jackknife's interval."""
FRECHET, PLAIN = "Frechet distance", "Frechet distance, not corrected for few frames"
KERNEL = "kernel distance (x 1000)"


def measure_distances(generated: Features, true: Features) -> dict[str, ScoreMean]:
    """The distances with 95 % intervals; no Frechet distance where there are too few frames for it."""
    clips = len(true)
    found = measure_frechet(generated, true) if has_covariance(*true.shape) else {}
    blocks = kernel_blocks(generated, true)
    draws = np.random.default_rng(SEED).integers(clips, size=(DRAWS if enough(clips) else 0, clips))
    counts = [np.bincount(draw, minlength=clips).astype(float) for draw in draws]
    kernel = [1000 * kernel_distance(blocks, count) for count in counts if (count > 0).sum() > 1]
    half = HALF_WIDTH * float(np.std(kernel, ddof=1)) if kernel else None
    return found | {KERNEL: _measure(1000 * kernel_distance(blocks, np.ones(clips)), half, clips)}


def has_covariance(clips: int, frames: int, width: int) -> bool:
    """Whether there are more frames than features, also without the clips that the jackknife leaves out.

    ValueError for fewer than two clips, which no distance here can be taken of.
    """
    if clips < 2:
        raise ValueError(f"--features needs two clips or more, got --clips {clips}")
    return (clips - -(-clips // min(clips, GROUPS))) * frames > width


def measure_frechet(generated: Features, true: Features) -> dict[str, ScoreMean]:
    """The Frechet distance corrected by the jackknife, with its interval, and as it is without correction.

    Groups may differ in size by one clip (the grouped jackknife of Busing, Meijer and van der Leeden 1999).
    """
    clips = len(true)
    plain = frechet_distance(_rows(generated), _rows(true))
    left_out = np.array_split(np.arange(clips), min(clips, GROUPS))
    kept = [np.delete(np.arange(clips), group) for group in left_out]
    without = np.array([frechet_distance(_rows(generated[rows]), _rows(true[rows])) for rows in kept])
    share = clips / np.array([len(group) for group in left_out])
    corrected = float(len(share) * plain - ((1 - 1 / share) * without).sum())
    spread = (share * plain - (share - 1) * without - corrected) ** 2 / (share - 1)
    half = float(stdtrit(len(share) - 1, CONFIDENCE) * np.sqrt(spread.mean())) if enough(clips) else None
    return {
        FRECHET: _measure(corrected, half, clips),
        PLAIN: ScoreMean(round(plain, DIGITS), None, None, clips),
    }


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


def _measure(found: float, half: float | None, clips: int) -> ScoreMean:
    ends = (None, None) if half is None else (round(found - half, DIGITS), round(found + half, DIGITS))
    return ScoreMean(round(found, DIGITS), *ends, clips)


def _rows(features: Features) -> Float[np.ndarray, "n d"]:
    return features.reshape(-1, features.shape[-1])
