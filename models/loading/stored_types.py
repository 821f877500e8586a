"""Whether weights are stored in numbers that they were trained in, or in fewer bits.

check_types(path, weights)
"""

from pathlib import Path

import torch
from torch import Tensor

from framelens.records.notes import print_note

UNQUANTISED = "give the original weights, in float32, bfloat16 or float16"


def check_types(path: Path, weights: dict[str, Tensor]) -> None:
    """Prints a note for weights of 8-bit floating point.

    Raises ValueError, which names the first, for matrices of whole numbers: quantised weights.
    """
    whole = [name for name, tensor in weights.items() if tensor.ndim > 1 and not tensor.is_floating_point()]
    if whole:
        raise ValueError(
            f"{path} holds {len(whole)} quantised tensors, as {whole[0]} of {weights[whole[0]].dtype}; "
            f"{UNQUANTISED}"
        )
    small = [name for name, tensor in weights.items() if _is_small(tensor)]
    if small:
        kind = weights[small[0]].dtype
        print_note(
            f"{path}: {len(small)} tensors, as {small[0]}, are {kind} without a scale, rounded by several "
            f"percent: {UNQUANTISED}"
        )


def _is_small(tensor: Tensor) -> bool:
    """Whether its numbers are of 8-bit floating point."""
    return tensor.is_floating_point() and torch.finfo(tensor.dtype).bits == 8
