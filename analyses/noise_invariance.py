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
