"""Where a network's values first stop being numbers."""

from collections.abc import Callable

import torch
from torch import Tensor

from framelens.diffusion.contract import CausalDiffuser, module_of
from framelens.hooks.trace import Trace


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
    where = seen[0] if seen else "the last projection"
    raise ValueError(
        f"the network's values are not finite (NaN or infinity), first at {where}; "
        f"non-finite weights: {', '.join(_bad_weights(model)) or 'none'}"
    )


def _bad_weights(model: CausalDiffuser) -> list[str]:
    return [
        name for name, weight in module_of(model).state_dict().items() if not torch.isfinite(weight).all()
    ][:10]
