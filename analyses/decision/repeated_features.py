"""Finding 1: are the features of early and middle layers repeated over denoising steps?"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import xarray as xr

from framelens.analyses.averages import noisiest, off_diagonal, summary
from framelens.analyses.decision.engine import Decided, Evidence, Measured, NotMeasured, Question
from framelens.analyses.decision.kept import mean_of, value_of
from framelens.analyses.depth import Depth, depth_of, mean_of_part
from framelens.analyses.sample import per_film
from framelens.analyses.scales import scale_of

EARLY_AND_MIDDLE = 2 / 3
REPEATED = 0.8
GAIN = 0.05
MARGIN = 0.1
MASSIVE = 0.5
"""The share of the squared norm of the features from which on one token or channel is named."""
TOKEN_COSINE, TOKEN_COSINE_NULL = "token_cosine_median", "other_context_token_cosine_median"
"""The cosine that decides: of single tokens without the median token, median over tokens; and its null."""
CLAIM = "Early and middle layers repeat their features over denoising steps."
REASONS = [
    f"Early and middle layers are the first {EARLY_AND_MIDDLE:.0%} of the blocks: Bai et al. 2026 report the "
    "layers up to 22 of 30 as repeated.",
    f"Repeated means a token cosine above {REPEATED}: that paper reports above 0.95 raw, and mentions a "
    "decrease to 0.8 as its exception.",
    "A token cosine is that of one token at two steps (or noise draws) without the median token, and its "
    "median over tokens decides: a cosine of whole feature maps is that of their few tokens of largest norm.",
    f"Learned means above random weights by {GAIN}: the null model is one shuffle, and another would "
    "differ by less. Where random weights already score near 1, this measure cannot show learning.",
    f"Features agree over noise draws when their token cosine exceeds its nulls by {MARGIN}: unrelated "
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
        """By network and clip: mean token cosine of different steps in early and middle layers."""
        self._require_variable("step_similarity", TOKEN_COSINE)
        found = {}
        for network in self.networks("step_similarity"):
            cosine = self.of("step_similarity", network)[TOKEN_COSINE]
            found[network] = mean_of_part(off_diagonal(cosine).mean("frame"), 0, EARLY_AND_MIDDLE)
        return found

    def _require_variable(self, dataset: str, variable: str) -> None:
        self.require(dataset)
        if variable not in self.data[dataset]:
            raise NotMeasured(
                f"This run's {dataset} has no {variable}: it is of an older version, probe again."
            )

    @property
    def raw(self) -> xr.DataArray:
        """The raw cosine of different steps by clip and layer: suggestive only."""
        self.require("step_similarity")
        return off_diagonal(self.of("step_similarity").cosine).mean("frame")

    @cached_property
    def agreement(self) -> Agreement:
        """How similar the features of two noise draws are; NotMeasured where they were not compared."""
        self._require_variable("noise_invariance", TOKEN_COSINE_NULL)
        stored = {n: noisiest(self.of("noise_invariance", n)) for n in self.networks("noise_invariance")}
        trained = stored["trained"]
        null = trained[TOKEN_COSINE_NULL]
        if "random" in stored:
            null = np.maximum(null, stored["random"][TOKEN_COSINE])
        cosine = summary(trained[TOKEN_COSINE], scale_of(TOKEN_COSINE))
        gain = summary(trained[TOKEN_COSINE] - null)
        return Agreement(depth_of(gain), float(trained.sigma), cosine, gain)

    @cached_property
    def massive(self) -> dict[str, xr.DataArray]:
        """By `token` and `channel`, the largest share of the squared norm that one has, by layer.

        The mean over clips, frames and steps; those alone that are above MASSIVE in some layer.
        """
        self.require("step_similarity")
        stored, found = self.of("step_similarity"), {}
        for kind in ("token", "channel"):
            if f"{kind}_share" in stored:
                share = per_film(stored[f"{kind}_share"]).mean(("clip", "frame", "step"))
                if float(share.max()) > MASSIVE:
                    found[kind] = share
        return found


def similarity_of_steps(evidence: FeatureEvidence) -> Measured:
    """The token cosine of different steps in early and middle layers."""
    return Measured(mean_of(evidence.parts["trained"], scale_of(TOKEN_COSINE)))


def gain_over_random_weights(evidence: FeatureEvidence) -> Measured:
    """The same minus that of random weights."""
    parts = evidence.parts
    if "random" not in parts:
        raise NotMeasured("This run did not measure a network with random weights.")
    gain = mean_of(parts["trained"] - parts["random"])
    return Measured(gain, numbers={"random": mean_of(parts["random"], scale_of(TOKEN_COSINE))})


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
