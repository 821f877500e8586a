"""Where a network's values first stop being numbers."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from framelens.diffusion.contract import CausalDiffuser, module_of
from framelens.hooks.trace import Trace
from framelens.models.loading.finite import NAMED, find_bad_weights


def require_finite(model: CausalDiffuser, video: Tensor, again: Callable[[Callable], Tensor]) -> None:
    """Raises ValueError unless the video is finite; it names the first point, frame and step that is not.

    `again(on_pass)` repeats the rollout that made the video.
    """
    if torch.isfinite(video).all():
        return
    seen: list[str] = []

    def look(at, name: str, value: Tensor) -> None:
        if not seen and not torch.isfinite(value).all():
            seen.append(f"{name}, {at.role} pass, frame {at.frame}, step {at.step}")

    with Trace(model.hook_dict, [name for name in model.hook_dict if "pattern" not in name], look) as trace:
        again(trace.on_pass)
    raise _not_finite(model, seen[0] if seen else "the last projection")


def require_finite_features(model: CausalDiffuser, features: Mapping[str, Tensor], at: str) -> None:
    """Raises ValueError unless the features of one pass are finite; it names the first point that is not.

    `features` are by hook point in the order of the network, `at` says of which pass, as "frame 3, sigma 1".
    """
    for point, value in features.items():
        if not torch.isfinite(value).all():
            raise _not_finite(model, f"{point}, denoise pass, {at}")


def _not_finite(model: CausalDiffuser, where: str) -> ValueError:
    bad = find_bad_weights(module_of(model))[:NAMED]
    return ValueError(
        f"the network's values are not finite (NaN or infinity), first at {where}; "
        f"non-finite weights: {', '.join(bad) or 'none'}"
    )
