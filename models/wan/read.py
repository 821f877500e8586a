"""Stock modules from diffusers with a checkpoint's weights in them, without a second copy in memory."""

from dataclasses import replace
from typing import Any

from framelens.models.loading.checkpoint import Checkpoint
from framelens.models.wan.names import for_diffusers
from framelens.records.extras import extra


def with_our_names(checkpoint: Checkpoint) -> Checkpoint:
    """A copy of the checkpoint with its tensors under diffusers' names."""
    return replace(checkpoint, weights=for_diffusers(checkpoint.weights))


def stock(kind: Any, arguments: dict[str, Any], checkpoint: Checkpoint) -> Any:
    """A network of that diffusers class with the checkpoint's own tensors as its weights.

    Weights that diffusers keeps in float32 are converted. ValueError for missing or other tensors.
    """
    with extra("families"):
        from accelerate import init_empty_weights

    with init_empty_weights():  # buffers (the rotary tables) are still created
        network = kind(**arguments)
    checkpoint.check({name: tuple(tensor.shape) for name, tensor in network.state_dict().items()})
    exact = kind._keep_in_fp32_modules
    weights = {
        name: tensor.float() if any(part in name.split(".") for part in exact) else tensor
        for name, tensor in checkpoint.weights.items()
    }
    network.load_state_dict(weights, assign=True)
    return network.eval().requires_grad_(False)
