"""Finding 1: are the features of early and middle layers repeated over denoising steps?"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import xarray as xr

from framelens.analyses.averages import noisiest, off_diagonal, summary
from framelens.analyses.decision.engine import Decided, Evidence, Measured, NotMeasured, Question
from framelens.analyses.decision.kept import mean_of, value_of
from framelens.analyses.depth import Depth, depth_of, mean_of_part
from framelens.analyses.scales import scale_of

EARLY_AND_MIDDLE = 2 / 3
REPEATED = 0.8
GAIN = 0.05
MARGIN = 0.1
CLAIM = "Early and middle layers repeat their features over denoising steps."
REASONS = [
    f"Early and middle layers are the first {EARLY_AND_MIDDLE:.0%} of the blocks: Bai et al. 2026 report the "
    "layers up to 22 of 30 as repeated.",
    f"Repeated means a mean centred cosine above {REPEATED}: that paper reports above 0.95 raw, and "
    "mentions a decrease to 0.8 as its exception.",
    f"Learned means above random weights by {GAIN}: the null model is one shuffle, and another would "
    "differ by less. Where random weights already score near 1, this measure cannot show learning.",
    f"Features agree over noise draws when their centred cosine exceeds its nulls by {MARGIN}: unrelated "
    "features vary by a few hundredths around 0.",
]


@dataclass(frozen=True)
class Agreement:
    """How similar the features of two noise draws are, by position in depth, at the highest noise level."""

    depth: Depth
    sigma: float
    cosine: xr.Dataset
    """Mean, low and high by layer."""
    gain: xr.Dataset
    """The same of the cosine minus the larger of its nulls."""

    @property
    def early(self) -> list[int]:
        """Positions of the early and middle layers."""
        return self.depth.part(0, EARLY_AND_MIDDLE)

    @property
    def clearest(self) -> int:
        """The position of the early or middle layer with the largest gain."""
        return max(self.early, key=lambda position: float(self.gain["mean"][position]))

    @property
    def is_measured(self) -> bool:
        """Whether there are enough clips for an interval."""
        return not np.isnan(self.gain["low"]).all()

    @property
    def risen(self) -> list[int]:
        """Positions of the blocks whose whole interval exceeds the nulls by MARGIN."""
        return [position for position in self.depth.blocks if float(self.gain["low"][position]) > MARGIN]


@dataclass(frozen=True)
class FeatureEvidence(Evidence):
    """Similarity over steps and agreement over noise draws."""

    @cached_property
    def parts(self) -> dict[str, xr.DataArray]:
        """By network and clip: mean centred cosine of different steps in early and middle layers."""
        self.require("step_similarity")
        found = {}
        for network in self.networks("step_similarity"):
            cosine = self.of("step_similarity", network).centred_cosine
            found[network] = mean_of_part(off_diagonal(cosine).mean("frame"), 0, EARLY_AND_MIDDLE)
        return found

    @property
    def raw(self) -> xr.DataArray:
        """The raw cosine of different steps by clip and layer: suggestive only."""
        self.require("step_similarity")
        return off_diagonal(self.of("step_similarity").cosine).mean("frame")

    @cached_property
    def agreement(self) -> Agreement:
        """How similar the features of two noise draws are."""
        self.require("noise_invariance")
        stored = {n: noisiest(self.of("noise_invariance", n)) for n in self.networks("noise_invariance")}
        trained = stored["trained"]
        null = trained.other_context
        if "random" in stored:
            null = np.maximum(null, stored["random"].centred_cosine)
        cosine = summary(trained.centred_cosine, scale_of("centred_cosine"))
        gain = summary(trained.centred_cosine - null)
        return Agreement(depth_of(gain), float(trained.sigma), cosine, gain)


def similarity_of_steps(evidence: FeatureEvidence) -> Measured:
    """The centred cosine of different steps in early and middle layers."""
    return Measured(mean_of(evidence.parts["trained"], scale_of("centred_cosine")))


def gain_over_random_weights(evidence: FeatureEvidence) -> Measured:
    """The same minus that of random weights."""
    parts = evidence.parts
    if "random" not in parts:
        raise NotMeasured("This run did not measure a network with random weights.")
    gain = mean_of(parts["trained"] - parts["random"])
    return Measured(gain, numbers={"random": mean_of(parts["random"], scale_of("centred_cosine"))})


def agreement_of_draws(evidence: FeatureEvidence) -> Measured:
    """The gain over the nulls in the clearest early or middle layer; passed where it is clear in any."""
    found = evidence.agreement
    gain = value_of(found.gain.isel(layer=found.clearest))
    passed = bool(set(found.early) & set(found.risen)) if found.is_measured else None
    return Decided(gain, passed=passed)


QUESTIONS = (
    Question(
        "repeated",
        f"Are features repeated, above {REPEATED}?",
        measure=similarity_of_steps,
        threshold=REPEATED,
        side="above",
        kind="claim",
        between=False,
    ),
    Question(
        "learned",
        f"Was it learned: more than with random weights, by {GAIN}?",
        measure=gain_over_random_weights,
        threshold=GAIN,
        side="above",
        kind="claim",
        between=False,
    ),
    Question(
        "from_context",
        f"Does it come from the context: more than its nulls by {MARGIN} in an early or middle layer?",
        measure=agreement_of_draws,
        threshold=MARGIN,
        side="above",
        kind="claim",
        between=False,
    ),
)
