"""Why a split is not placed although the last layers do not need the past: fetched once, nothing is kept.

    describe_late(evidence)         # a sentence; empty where fetching once keeps something

A network may need its past only where little noise is left. What an encoder fetched from pure noise, before
the first step, would then be empty.
"""

import numpy as np

from framelens.analyses.decision.evidence import SplitEvidence
from framelens.analyses.decision.kept import BENEFIT, THRESHOLD, Value, summary
from framelens.analyses.decision.words import spell_share


def describe_late(evidence: SplitEvidence) -> str:
    """That the past is needed late only, or again at every step; empty where fetching once keeps any of it.

    Needed late only: at the noisiest of the levels the past removes no more than BENEFIT of the error.
    """
    found = evidence.curves
    placed = found.placed_depth(THRESHOLD)
    depth = evidence.layers + 1 if placed is None else int(summary(placed.astype(float)).mean)
    if depth > evidence.layers or not found.keeps_nothing(depth):
        return ""
    levels, benefit = _benefit_by_level(evidence)
    least, most = Value(*(end[-1] for end in benefit)), Value(*(end[0] for end in benefit))
    end = "an encoder that runs once, before the first step, has nothing to hand on, so no split is placed."
    if least.most > BENEFIT:
        return f"What was fetched at the first step is of no use at the later ones: {end}"
    return (
        f"The past is needed late only: at noise level {levels[-1]:.2f} it removes {spell_share(least)} of "
        f"the error, at {levels[0]:.2f} {spell_share(most)}; {end}"
    )


def _benefit_by_level(evidence: SplitEvidence) -> tuple[np.ndarray, Value]:
    """The noise levels, ascending, and the share of the velocity error that the past removes at each."""
    context, cut = evidence.context_for("cut"), evidence.data["cut"].sortby("sigma")
    cut = cut.sel(network="trained", drop=True) if "network" in cut.dims else cut
    own = context.rows(cut.velocity_error.sel(where="from", layer=0, drop=True))
    plain = context.rows(cut.plain_velocity_error)
    return cut.sigma.values, summary(1 - plain / own)
