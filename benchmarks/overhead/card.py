"""What arithmetic says of a watched rollout: operations of the network, what statistics add and keep.

    plain_flops(setting)                      # of the rollout; a multiply-add counts as two
    added(setting)["feature_pca"]             # -> Added(flops, kept_bytes), or None for an unknown statistic

Element-wise work inside the network is not counted. The statistics only add and compare beside two matrix
products, so their time is memory traffic rather than operations.
"""

from dataclasses import dataclass
from math import isqrt

from framelens.analyses import statistics
from framelens.analyses.sums.low_rank import RANK, ROUNDS, SPARE
from framelens.analyses.sums.sketch import BUCKETS, TOKEN_BUCKETS
from framelens.models import dense
from framelens.probes.run.settings import Settings

CHANNELS, HEADS, WIDTH = 16, 4, 256
BYTES = 4
"""Of a float32."""


@dataclass(frozen=True)
class Rollout:
    """One rollout to be watched and all that decides its cost; frames - 1 are given, the last is sampled."""

    tokens: int
    frames: int
    steps: int
    device: str
    seed: int
    layers: int = 6

    def __post_init__(self):
        if self.tokens < 1 or isqrt(self.tokens) ** 2 != self.tokens:
            raise ValueError(
                f"--tokens must be squares of whole numbers such as 64 or 1024, got {self.tokens}"
            )
        if self.frames < 2:
            raise ValueError(
                f"--frames must be at least 2, one of history and one sampled, got {self.frames}"
            )
        if self.layers < 1:
            raise ValueError(f"--layers must be at least 1, got {self.layers}")
        if self.steps < 2:
            raise ValueError(f"--steps must be at least 2, since steps are compared, got {self.steps}")

    @property
    def side(self) -> int:
        """Rows and columns of a frame of latents, each of which is a token."""
        return isqrt(self.tokens)

    @property
    def keys(self) -> int:
        """Keys that each query of the sampled frame sees."""
        return self.frames * self.tokens

    @property
    def config(self) -> dense.Config:
        return dense.Config(
            channels=CHANNELS, height=self.side, width=self.side, patch=1, layers=self.layers, heads=HEADS,
            d_model=WIDTH,
        )  # fmt: skip

    @property
    def probing(self) -> Settings:
        """What a probe of this rollout would be asked to do."""
        return Settings(frames=self.frames, context=self.frames - 1, probed=1, steps=self.steps)


@dataclass(frozen=True)
class Added:
    """What a statistic adds to a rollout: operations, and bytes that it holds at the end of the frame."""

    flops: int
    kept_bytes: int


def plain_flops(setting: Rollout) -> int:
    """Matrix products of the whole rollout: frames - 1 encoding passes and one denoising pass a step."""
    n, history = setting.tokens, range(1, setting.frames)
    encoding = sum(setting.layers * _block(n, frames * n) + 2 * n * CHANNELS * WIDTH for frames in history)
    ends = 4 * n * CHANNELS * WIDTH
    embedding = 2 * (256 * WIDTH + 3 * WIDTH**2) * (setting.steps + len(history))
    return encoding + setting.steps * (setting.layers * _block(n, setting.keys) + ends) + embedding


def _block(tokens: int, keys: int) -> int:
    """q, k, v, o (4 d²), MLP (8 d²), attention (2 keys d) by token, adaLN (6 d²) by frame; two each."""
    return 2 * (tokens * (12 * WIDTH**2 + 2 * keys * WIDTH) + 6 * WIDTH**2)


def added(setting: Rollout) -> dict[str, Added | None]:
    """What each statistic adds, by name; None where no arithmetic is known."""
    known = {
        "block_norms": _block_norms,
        "feature_pca": _feature_pca,
        "frame_attention": _frame_attention,
        "step_similarity": _step_similarity,
    }
    return {name: known[name](setting) if name in known else None for name in statistics.names()}


def naive_bytes(setting: Rollout) -> int:
    """Every map and every tensor that the statistics read, of every denoising step."""
    maps = setting.layers * HEADS * setting.tokens * setting.keys
    tensors = (3 * setting.layers + 1) * setting.tokens * WIDTH
    return BYTES * setting.steps * (maps + tensors)


def _block_norms(setting: Rollout) -> Added:
    values = 3 * setting.layers * setting.steps
    return Added(2 * values * setting.tokens * WIDTH, BYTES * values)


def _frame_attention(setting: Rollout) -> Added:
    """Scores and mean keys of the chosen queries; mass by lag, entropy and an error are kept."""
    queries = min(setting.probing.queries, setting.tokens)
    flops = setting.layers * setting.steps * 4 * queries * setting.keys * WIDTH
    return Added(flops, BYTES * setting.layers * setting.steps * HEADS * (setting.frames + 2))


def _feature_pca(setting: Rollout) -> Added:
    """Few tokens: a covariance and an eigenproblem of 10 d³ a frame; many: subspace iterations a step."""
    n, statistic = setting.tokens, statistics.load("feature_pca").for_run(setting.probing)
    kept = len(statistic.steps)
    if n <= statistic.exact_tokens:
        flops = 2 * kept * n * WIDTH**2 + 6 * kept * n * WIDTH + 10 * WIDTH**3
        return Added(setting.layers * flops, BYTES * setting.layers * kept * n * WIDTH)
    flops = kept * (4 * ROUNDS + 2) * n * WIDTH * (RANK + SPARE)
    return Added(setting.layers * flops, BYTES * setting.layers * kept * ((n + WIDTH) * RANK + WIDTH + 1))


def _step_similarity(setting: Rollout) -> Added:
    """A mean, a difference, norms, signs and two sums by entry, then a step x step matrix of the sketches."""
    n, points, steps = setting.tokens, setting.layers + 1, setting.steps
    if n <= statistics.load("step_similarity").Statistic().exact_tokens:
        flops = points * (steps * 2 * n**2 * WIDTH + 2 * steps**2 * (n * WIDTH + n**2 // 2))
        return Added(flops, BYTES * points * steps * n * WIDTH)
    kernel = (TOKEN_BUCKETS // 2) ** 2
    flops = points * (steps * (7 * n * WIDTH + 2 * kernel * WIDTH) + 2 * steps**2 * (BUCKETS + kernel))
    # The two sketches are in half precision, each with a scale.
    return Added(flops, points * steps * (2 * (BUCKETS + kernel) + BYTES * (n + WIDTH + 2)))
