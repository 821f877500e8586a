"""A model around another one, which does itself what it changes and hands on the rest.

    class CutModel(Around):
        def denoise(self, x, sigma, context): ...       # and in __init__: self.model = model

What the inner model does not have the outer one does not have either, so hasattr and getattr with a default
say the same of both.
"""

from collections.abc import Iterator
from operator import attrgetter
from typing import Any


def handed_on(*names: str) -> Iterator[property]:
    """For each name what `self.model` has under it."""
    return (property(attrgetter(f"model.{name}")) for name in names)


class Around:
    """All of a model but `denoise`, and but its passes over whole clips, which would go round that."""

    model: Any
    geometry, hook_dict, attn_dict = handed_on("geometry", "hook_dict", "attn_dict")
    source, latent, sampling = handed_on("source", "latent", "sampling")
    takes, null_condition = handed_on("takes", "null_condition")
    start, start_is_pass, encode = handed_on("start", "start_is_pass", "encode")
    asks, read, ask = handed_on("asks", "read", "ask")
    disturbed, disturbed_is_pass = handed_on("disturbed", "disturbed_is_pass")
    at_steps = property(attrgetter("model.at_steps"))
