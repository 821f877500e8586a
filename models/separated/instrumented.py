"""Attention in a separated network's decoder, as instruments see it."""

from dataclasses import replace

import torch
from torch import Tensor

from framelens.hooks.attention import AttentionPoint


def point_of_decoder(point: AttentionPoint, fusion: str, own: int) -> AttentionPoint:
    """The point of a decoder whose chunk has `own` tokens, given that of its network.

    Keys are those of no frame, those of the features (but for the residual fusion), and the chunk's own.
    """
    if fusion == "residual":
        return replace(point, key_age=lambda frame, keys: point.key_age(0, keys).clamp(max=0))

    def key_age(frame: int, keys: int) -> Tensor:
        try:
            ages = point.key_age(0, keys - own).clamp(max=0)
        except ValueError:  # the pass that reads the features themselves
            ages = torch.empty(0)
        if len(ages) < own or len(ages) + own != keys:
            return point.key_age(0, keys).clamp(max=0)
        # Features stand for the frames before the chunk; before the first frame there are none.
        of_features = torch.full((own,), 1 if frame else -1)
        return torch.cat([ages[: len(ages) - own], of_features, ages[len(ages) - own :]])

    return replace(point, key_age=key_age, own_queries=own)
