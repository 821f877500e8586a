"""A model over all GPUs of a machine, and its memory for what does not fit, by accelerate's device maps.

    model = spread(model)                                   # as many layers as fit on each, in their order
    model = spread(model, {"embed": 0, "blocks": 1, ...})    # by a map of one's own

The model names in `no_split` the classes whose modules stay whole on one device each.
"""

import warnings
from typing import Any

import torch
from torch import nn

from framelens.models.loading.devices import AUTO, entrance
from framelens.records.extras import extra

SPARE = 0.6
"""Share of each GPU's free memory that weights may take: contexts and passes need the rest."""


def spread(model: Any, device_map: dict[str, Any] | None = None, folder: str | None = None) -> Any:
    """The model with hooks that move what enters each part to where it is; on one device where it fits.

    `folder` takes what a map sends to "disk". ValueError where a model has to be divided and says not how.
    """
    if device_map is None:
        if not torch.cuda.is_available():
            return model
        device_map = _fitted(model)
        if set(device_map.values()) <= {0}:
            return model.to(entrance(AUTO))
    with extra("families"):
        from accelerate import dispatch_model

    if not getattr(model, "no_split", ()):
        raise ValueError(
            f"a {type(model).__name__} does not say where it may be divided (no_split), and does not fit on "
            "one GPU: use --dtype bfloat16 or --device cpu"
        )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The following device_map keys do not match")  # what the root holds
        return dispatch_model(model, _root_at_entrance(model, device_map), offload_dir=folder)


def is_spread(model: Any) -> bool:
    """Whether parts of the model lie elsewhere than its passes begin."""
    return getattr(model, "hf_device_map", None) is not None


def _fitted(model: Any) -> dict[str, Any]:
    """accelerate's map, GPU by GPU, then the processor's memory; ValueError where that is too small."""
    with extra("families"):
        from accelerate import infer_auto_device_map
        from accelerate.utils import get_max_memory

    most: dict[Any, Any] = {device: int(SPARE * free) for device, free in get_max_memory().items()}
    found = infer_auto_device_map(model, most, no_split_module_classes=list(getattr(model, "no_split", ())))
    if "disk" in found.values():
        needed = sum(weight.nbytes for weight in model.parameters()) / 1e9
        raise ValueError(
            f"its weights take {needed:.1f} GB, more than {SPARE:.0%} of what all GPUs and this machine have "
            "free; contexts and passes need the rest: use --dtype bfloat16 or a machine with more memory"
        )
    return found


def _root_at_entrance(model: nn.Module, device_map: dict[str, Any]) -> dict[str, Any]:
    """The map with what belongs to no part of the model where its passes begin: nothing moves it in time."""
    main = next((place for place in device_map.values() if place not in ("cpu", "disk")), "cpu")
    own = {name for name, _ in [*model.named_parameters(recurse=False), *model.named_buffers(recurse=False)]}
    return device_map | dict.fromkeys(own & device_map.keys(), main)
