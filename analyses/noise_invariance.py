"""What two noise draws agree on: features of one context and sigma, denoised from different noise.

At sigma 1 the input says nothing of the frame, so what agrees comes from the context.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def noise_invariance(
    features_a: Float[Tensor, "*l n d"], features_b: Float[Tensor, "*l n d"]
) -> Float[Tensor, "*l"]:
    """Cosine of two feature maps, each without its own mean token, in [-1, 1].

    All tokens and channels count as one vector; sums run in float64. NaN where
    all tokens of a map are alike, since nothing is left to compare.
    """
    a, b = (f.double() - f.double().mean(-2, keepdim=True) for f in (features_a, features_b))
    norms = torch.linalg.vector_norm(a, dim=(-2, -1)) * torch.linalg.vector_norm(b, dim=(-2, -1))
    return ((a * b).sum((-2, -1)) / norms).float()


def compare_tokens(
    features_a: Float[Tensor, "*l n d"], features_b: Float[Tensor, "*l n d"]
) -> dict[str, Float[Tensor, "*l"]]:
    """centred_cosine, and token_cosine and token_cosine_median: one cosine per token, its mean and median.

    Each token is compared without the median token of its own map, channel by channel, so that a few massive
    tokens change neither their mean nor their median. A token without a direction is left out.
    """
    a, b = (f.double() - f.double().median(-2, keepdim=True).values for f in (features_a, features_b))
    norms = torch.linalg.vector_norm(a, dim=-1) * torch.linalg.vector_norm(b, dim=-1)
    cosines = (a * b).sum(-1) / norms
    return {
        "centred_cosine": noise_invariance(features_a, features_b),
        "token_cosine": cosines.nanmean(-1).float(),
        "token_cosine_median": cosines.nanmedian(-1).values.float(),
    }
