"""A model around another one, which does itself what it changes and hands on the rest.

    class CutModel(Around):
        def denoise(self, x, sigma, context): ...       # and in __init__: self.model = model

Its traits are those of the inner model, but for what it says itself and for what it hides.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from framelens.diffusion.contract import CausalDiffuser, Context, Geometry, traits


class Around:
    """All of a model but `denoise`."""

    model: CausalDiffuser
    hides: frozenset[str] = frozenset({"teacher_forced", "bidirectional", "stack", "announces"})
    """Traits of the inner model that this one has not: passes over whole clips and by layers would go round
    `denoise`, and the methods here announce nothing."""

    @property
    def geometry(self) -> Geometry:
        return self.model.geometry

    @property
    def hook_dict(self) -> Mapping[str, nn.Module]:
        return self.model.hook_dict

    @property
    def attn_dict(self) -> Mapping[str, Any]:
        return self.model.attn_dict

    @property
    def handed_on(self) -> dict[str, Any]:
        """The traits of the inner model that are this one's, too, unless it says otherwise."""
        return {name: value for name, value in vars(traits(self.model)).items() if name not in self.hides}

    def start(self, batch: int, cond: Tensor | None = None) -> Context:
        return self.model.start(batch, cond)

    def encode(self, x: Tensor, context: Context) -> Context:
        return self.model.encode(x, context)
