"""A training whose weights, gradients, optimiser and average are divided among processes (FSDP2).

    shard(model, ranks, "cpu")                         # before optimisers are made
    state = gather(training.average)                   # whole tensors on the CPU; all ranks call it
    model.load_state_dict(place_like(state, model.state_dict()))

Each module that holds weights and no other modules is one unit: it is gathered when it runs and given up
again. That suits networks that use such weights through their modules alone, and is not tuned for speed.
"""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from framelens.models.loading.ranks import Ranks

PASSES = ("start", "encode", "read", "ask", "denoise", "teacher_forced", "denoise_teacher_forced")
PASSES += ("read_clip", "decode_clip")
"""The methods of a network that run it, beside its `forward`."""


def shard(model: nn.Module, ranks: Ranks, device: str) -> None:
    """Divides the network's weights among the ranks, in place. ValueError for one process."""
    if ranks.size == 1:
        raise ValueError(
            "--fsdp divides a training among processes: start them by torchrun --nproc-per-node N -m "
            "framelens.training"
        )
    mesh = init_device_mesh(torch.device(device).type, (ranks.size,))
    for module in list(model.modules()):
        if module is not model and not list(module.children()) and list(module.parameters()):
            fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh)
    for name in PASSES:
        if inspect.isfunction(getattr(type(model), name, None)):
            register_fsdp_forward_method(model, name)


def gather(value: Any) -> Any:
    """The same value with whole tensors on the CPU where some are divided; all ranks ask together."""
    if isinstance(value, DTensor):
        return value.full_tensor().cpu()
    if isinstance(value, Mapping):
        return {name: gather(part) for name, part in value.items()}
    return [gather(part) for part in value] if isinstance(value, list) else value


def place_like(saved: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The saved tensors, each divided among the ranks and on the device as the own one of that name."""
    return {name: _place(tensor, own[name]) for name, tensor in saved.items()}


def place_state(saved: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The saved state of an optimiser, divided as the weights that it is of."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    state = {
        index: {
            name: _place(value, weights[index]) if value.shape == weights[index].shape else value
            for name, value in values.items()
        }
        for index, values in saved["state"].items()
    }
    return {**saved, "state": state}


def _place(tensor: Tensor, like: Tensor) -> Tensor:
    if not isinstance(like, DTensor):
        return tensor.to(like.device)
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)
