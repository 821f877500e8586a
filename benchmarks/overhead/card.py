"""What arithmetic says of a watched rollout: operations of the network, what statistics add and keep.

    plain_flops(setting)                      # of the rollout; a multiply-add counts as two
    statistic_costs(setting)["feature_pca"]   # -> StatisticCost: operations, and bytes kept

Each statistic says in its own file what it costs. Element-wise work inside the network is not counted.
"""

from dataclasses import dataclass
from math import isqrt

from framelens.analyses import statistics
from framelens.analyses.cost import FLOAT32, StatisticCost, WatchedShape
from framelens.models import dense
from framelens.models.cost.shape import VALUE_BYTES
from framelens.probes.run.settings import Settings

CHANNELS, HEADS, WIDTH = 16, 4, 256


@dataclass(frozen=True)
class Rollout:
    """One rollout to be watched and all that decides its cost; frames - 1 are given, the last is sampled."""

    tokens: int
    frames: int
    steps: int
    device: str
    seed: int
    layers: int = 6
    dtype: str = "float32"
    """Of the weights."""
    network: dense.Config | None = None
    """Another network than that of HEADS and WIDTH, with `tokens` tokens and `layers` layers."""

    def __post_init__(self):
        if self.network is not None:
            return
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
    def keys(self) -> int:
        """Keys that each query of the sampled frame sees."""
        return self.frames * self.tokens

    @property
    def config(self) -> dense.Config:
        """The network; of the usual one each latent is a token."""
        side = isqrt(self.tokens)
        return self.network or dense.Config(
            channels=CHANNELS, height=side, width=side, patch=1, layers=self.layers, heads=HEADS,
            d_model=WIDTH,
        )  # fmt: skip

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """The shape of the clip."""
        config = self.config
        return 1, self.frames, config.channels, config.height, config.width

    @property
    def probing(self) -> Settings:
        """What a probe of this rollout would be asked to do."""
        return Settings(frames=self.frames, context=self.frames - 1, probed=1, steps=self.steps)

    @property
    def watched(self) -> WatchedShape:
        """What statistics are given of it: the last frame, at every step."""
        return WatchedShape(
            layers=self.layers, heads=self.config.heads, width=self.config.d_model, tokens=self.tokens,
            steps=self.steps, pasts=(self.frames - 1,), value_bytes=VALUE_BYTES[self.dtype],
        )  # fmt: skip


def plain_flops(setting: Rollout) -> int:
    """Matrix products of the whole rollout: frames - 1 encoding passes and one denoising pass a step."""
    n, history, config = setting.tokens, range(1, setting.frames), setting.config
    width, values = config.d_model, config.channels * config.patch**2
    encoding = sum(
        setting.layers * _block(n, frames * n, config) + 2 * n * values * width for frames in history
    )
    ends = 4 * n * values * width
    embedding = 2 * (256 * width + 3 * width**2) * (setting.steps + len(history))
    return encoding + setting.steps * (setting.layers * _block(n, setting.keys, config) + ends) + embedding


def _block(tokens: int, keys: int, config: dense.Config) -> int:
    """q, k, v, o (4 d²), MLP (2 d m), attention (2 keys d) by token, adaLN (6 d²) by frame; two each."""
    d, m = config.d_model, config.mlp_width or 4 * config.d_model
    return 2 * (tokens * (4 * d**2 + 2 * d * m + 2 * keys * d) + 6 * d**2)


def statistic_costs(setting: Rollout) -> dict[str, StatisticCost]:
    """What each statistic adds, by name. ValueError for one that does not say what it costs."""
    return {name: statistics.cost_of(name, setting.probing, setting.watched) for name in statistics.names()}


def naive_bytes(setting: Rollout) -> int:
    """Every map and every tensor that the statistics read, of every denoising step."""
    maps = setting.layers * setting.config.heads * setting.tokens * setting.keys
    tensors = (3 * setting.layers + 1) * setting.tokens * setting.config.d_model
    return FLOAT32 * setting.steps * (maps + tensors)
