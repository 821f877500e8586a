"""Spreads a model over all GPUs of a machine, and over CPU memory for the rest, by accelerate's device maps.

    model = spread(model)                                   # each GPU takes the layers that fit, in order
    model = spread(model, {"embed": 0, "blocks": 1, ...})    # by your own map

The model's `no_split` names the classes whose modules stay whole on one device.
"""

import warnings
from typing import Any

import torch
from torch import nn

from framelens.diffusion.contract import CausalDiffuser, module_of, traits
from framelens.models.loading.devices import AUTO, first_device
from framelens.records.extras import extra

SPARE = 0.6
"""The share of each GPU's free memory that weights may take. Contexts and passes need the rest."""


def spread(
    model: CausalDiffuser, device_map: dict[str, Any] | None = None, folder: str | None = None
) -> CausalDiffuser:
    """The model with hooks that move the inputs of each part to its device; one device if it fits there.

    `folder` stores what a map sends to "disk". ValueError for a model that does not fit and names no
    `no_split`.
    """
    if device_map is None:
        if not torch.cuda.is_available():
            return model
        device_map = _fit(model)
        if set(device_map.values()) <= {0}:
            module_of(model).to(first_device(AUTO))
            return model
    with extra("families"):
        from accelerate import dispatch_model

    if not traits(model).no_split:
        raise ValueError(
            f"a {type(model).__name__} does not fit on one GPU and has no no_split, which says where it may "
            "be divided: use --dtype bfloat16 or --device cpu"
        )
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "The following device_map keys do not match"
        )  # about parameters of the root
        module = module_of(model)
        dispatch_model(module, _put_root_on_first_device(module, device_map), offload_dir=folder)
    return model


def is_spread(model: CausalDiffuser) -> bool:
    """Whether parts of the model are on other devices than the first."""
    return traits(model).hf_device_map is not None


def _fit(model: CausalDiffuser) -> dict[str, Any]:
    """The map of accelerate: GPU by GPU, then CPU memory. ValueError if all of it is too small."""
    with extra("families"):
        from accelerate import infer_auto_device_map
        from accelerate.utils import get_max_memory

    most: dict[Any, Any] = {device: int(SPARE * free) for device, free in get_max_memory().items()}
    module = module_of(model)
    found = infer_auto_device_map(module, most, no_split_module_classes=list(traits(model).no_split))
    if "disk" in found.values():
        needed = sum(weight.nbytes for weight in module.parameters()) / 1e9
        raise ValueError(
            f"its weights take {needed:.1f} GB, more than {SPARE:.0%} of what all GPUs and this machine have "
            "free; contexts and passes need the rest: use --dtype bfloat16 or a machine with more memory"
        )
    return found


def _put_root_on_first_device(model: nn.Module, device_map: dict[str, Any]) -> dict[str, Any]:
    """The map with the root's own parameters on the first device: no hook moves them there."""
    main = next((place for place in device_map.values() if place not in ("cpu", "disk")), "cpu")
    own = {name for name, _ in [*model.named_parameters(recurse=False), *model.named_buffers(recurse=False)]}
    return device_map | dict.fromkeys(own & device_map.keys(), main)
