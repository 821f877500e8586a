"""The loss of distribution matching: generated clips move to where the real score, not the fake one, leads.

    loss = matching_loss(generated, fake_clean, real_clean)

Both scores see the same noised clips and predict the clean ones. The real score knows the clips that are to
be matched, the fake score those that are generated now; their difference is the gradient of the divergence
between the two distributions (Yin et al. 2024, DMD and DMD2).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from framelens.diffusion.schedule import shift_levels

LEAST_LEVEL, MOST_LEVEL = 0.02, 0.98
"""The noise levels at which clips are compared."""
LEAST_DISTANCE = 1e-6
"""The least normaliser: a clip on which the real score agrees has a gradient that is finite."""


def sample_levels(batch: int, shift: float, generator: torch.Generator) -> Float[Tensor, " {batch}"]:
    """A noise level for each clip: uniform, shifted, from LEAST_LEVEL to MOST_LEVEL."""
    uniform = torch.rand(batch, generator=generator, device=generator.device)
    return shift_levels(uniform, shift).clamp(LEAST_LEVEL, MOST_LEVEL)


def matching_gradient(
    generated: Float[Tensor, "b f c h w"],
    fake: Float[Tensor, "b f c h w"],
    real: Float[Tensor, "b f c h w"],
) -> Float[Tensor, "b f c h w"]:
    """(fake - real) / mean |generated - real|, the mean of each clip, of the scores' clean frames."""
    distance = (generated - real).abs().mean(dim=(1, 2, 3, 4), keepdim=True)
    return (fake - real) / distance.clamp_min(LEAST_DISTANCE)


def matching_loss(
    generated: Float[Tensor, "b f c h w"],
    fake: Float[Tensor, "b f c h w"],
    real: Float[Tensor, "b f c h w"],
) -> Float[Tensor, " b"]:
    """Half the mean squared distance of each clip to generated - gradient, which is a constant.

    Its derivative by `generated` is the gradient, over the number of values of a clip; none reaches the
    scores.
    """
    with torch.no_grad():
        target = generated.float() - matching_gradient(generated.float(), fake.float(), real.float())
    return 0.5 * (generated.float() - target).square().mean(dim=(1, 2, 3, 4))
