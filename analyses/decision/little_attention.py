"""Finding 2: do deep layers attend little to earlier frames?"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import xarray as xr

from framelens.analyses.averages import by_head, by_lag, sees_past, uniform_share
from framelens.analyses.decision.engine import Evidence, Measured, NotMeasured, Question
from framelens.analyses.decision.kept import Value, mean_of
from framelens.analyses.depth import Depth, depth_of, mean_of_part
from framelens.analyses.sample import per_film
from framelens.analyses.scales import scale_of

DEEP = 1 / 4
SHALLOW = 1 / 2
LITTLE = 0.5
MARGIN = 0.1
CLAIM = "Deep layers attend little to earlier frames."
REASONS = [
    f"Deep layers are the last {DEEP:.0%} of the blocks: Bai et al. 2026 cut the last 5 of 30. They are "
    f"compared with the first {SHALLOW:.0%}.",
    f"Little means less than {LITTLE} of what uniform attention gives: a reader of the "
    "plot would not call more than half sparse.",
    f"Less means less by {MARGIN} of the attention or more: a smaller difference hardly changes what a "
    "layer can fetch, and another random initialisation could differ as much.",
]


@dataclass(frozen=True)
class Sharpest:
    """The layer and the earlier frame with the most attention for that frame's share of the keys."""

    position: int
    lag: int
    times: float
    """That frame's attention over its share of the keys."""


@dataclass(frozen=True)
class AttentionEvidence(Evidence):
    """Attention to earlier frames, by layer."""

    @cached_property
    def is_measured(self) -> bool:
        """Whether attention was measured, and any frame sees an earlier one."""
        return "frame_attention" in self.data and sees_past(self.data["frame_attention"])

    @cached_property
    def _read(self) -> tuple[dict[str, xr.DataArray], xr.DataArray]:
        if not self.is_measured:
            raise NotMeasured("This run did not measure frame_attention.")
        mass, share = {}, xr.DataArray(np.nan)
        for network in self.networks("frame_attention"):
            stored = self.of("frame_attention", network)
            uniform = uniform_share(stored)
            mass[network] = by_head(stored.cross_mass, uniform).mean("head")
            share = uniform.where(uniform.lag >= 1).sum("lag").mean("frame")
        return mass, share

    @property
    def mass(self) -> dict[str, xr.DataArray]:
        """By network: attention to earlier frames by clip and layer, mean over heads and steps."""
        return self._read[0]

    @property
    def share(self) -> xr.DataArray:
        """What uniform attention would give, by layer where layers see different frames."""
        return self._read[1]

    @property
    def depth(self) -> Depth:
        """The layers."""
        return depth_of(self.mass["trained"])

    @property
    def sharpest(self) -> Sharpest:
        """Where attention is sharpest on one earlier frame."""
        mass, share = by_lag(self.of("frame_attention"))
        relative = (per_film(mass).mean("clip") / share).where(mass.lag >= 1).transpose("layer", "lag")
        layer, lag = np.unravel_index(int(np.nanargmax(relative.values)), relative.shape)
        return Sharpest(int(layer), int(relative.lag[lag]), float(relative[layer, lag]))


def deep_over_uniform(evidence: AttentionEvidence) -> Measured:
    """Attention of deep layers to earlier frames over what uniform attention gives."""
    deep = mean_of(mean_of_part(evidence.mass["trained"], 1 - DEEP, 1), scale_of("cross_mass"))
    share = evidence.share
    uniform = float(mean_of_part(share, 1 - DEEP, 1) if "layer" in share.dims else share)
    ratio = Value(*(end / uniform for end in deep))
    return Measured(ratio, numbers={"deep": deep, "uniform": uniform})


def deep_minus_shallow(evidence: AttentionEvidence) -> Measured:
    """Attention of deep layers to earlier frames minus that of shallow ones."""
    trained = evidence.mass["trained"]
    change = mean_of_part(trained, 1 - DEEP, 1) - mean_of_part(trained, 0, SHALLOW)
    return Measured(mean_of(change))


def deep_minus_random(evidence: AttentionEvidence) -> Measured:
    """Attention of deep layers to earlier frames minus that with random weights."""
    mass = evidence.mass
    if "random" not in mass:
        raise NotMeasured("This run did not measure a network with random weights.")
    return Measured(mean_of(mean_of_part(mass["trained"] - mass["random"], 1 - DEEP, 1)))


QUESTIONS = (
    Question(
        "little",
        f"Is it little, below {LITTLE} of uniform?",
        measure=deep_over_uniform,
        threshold=LITTLE,
        side="below",
        kind="claim",
        between=False,
    ),
    Question(
        "less",
        f"Is it less than in shallow layers, by {MARGIN}?",
        measure=deep_minus_shallow,
        threshold=-MARGIN,
        side="below",
        kind="claim",
        between=False,
    ),
    Question(
        "learned",
        f"Was it learned: less than with random weights, by {MARGIN}?",
        measure=deep_minus_random,
        threshold=-MARGIN,
        side="below",
        kind="claim",
        between=False,
    ),
)
