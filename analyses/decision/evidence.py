"""The evidence of the planner's questions: a run's datasets, curves over depth, the benefit of the past.

evidence = SplitEvidence(datasets, layers=12)
evidence.context_for("reuse").kept_share("velocity", datasets["reuse"], kind="cross", start=0)
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from framelens.analyses.decision.curves import Curves, curves
from framelens.analyses.decision.engine import Evidence, NotMeasured
from framelens.analyses.decision.kept import MEASURES, THRESHOLD, Context
from framelens.analyses.sample import Sample, sample_of


@dataclass(frozen=True)
class SplitEvidence(Evidence):
    """A run's datasets and the number of layers that denoise."""

    layers: int

    @property
    def sample(self) -> Sample:
        """The clips that the cuts were measured on; none where own-frame-only was not measured."""
        return Sample(0) if self.maybe_context is None else sample_of(self.data["cut"])

    @cached_property
    def maybe_context(self) -> Context | None:
        """The benefit of the past; None where own-frame-only in all layers was not measured."""
        return Context(self.data["cut"]) if "cut" in self.data and 0 in self.data["cut"].layer else None

    def context_for(self, *names: str) -> Context:
        """The benefit of the past; raises NotMeasured where it or one of the named datasets is missing."""
        self.require(*names)
        if self.maybe_context is not None:
            return self.maybe_context
        self.require("cut")
        raise NotMeasured(f"Cuts begin with layer {int(self.data['cut'].layer.min())}, not 0.")

    @cached_property
    def curves(self) -> Curves:
        """The kept share at each depth."""
        return curves(self.data, self.maybe_context, self.layers)

    @property
    def encoder_layers(self) -> int:
        """The depth of the encoder at THRESHOLD; raises NotMeasured where there is none."""
        cut = self.curves.cut(THRESHOLD)
        if cut is None:
            raise NotMeasured("The split has no encoder, so this cannot be measured.")
        return cut.encoder_layers

    @property
    def has_no_benefit(self) -> bool:
        """Whether the benefit of the past was measured and is too small to compute a kept share."""
        context = self.maybe_context
        if context is None or np.isnan(np.minimum(*(context.benefit(measure)[0] for measure in MEASURES))):
            return False
        return not context.has_benefit()
