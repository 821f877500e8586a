"""Points of a model that no instrument may use."""

from collections.abc import Mapping
from typing import Any


class NoPoints(Mapping):
    """A dictionary of points whose every use raises ValueError with the reason why there are none."""

    def __init__(self, reason: str):
        self.reason = reason

    def _refuse(self, *_: Any):
        raise ValueError(self.reason)

    __getitem__ = __iter__ = _refuse

    def __len__(self) -> int:
        return 0
