"""The hash of a network's weights as they were loaded, whatever file or function they came from.

digest = hash_weights(module)
"""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn

from framelens.records.notes import print_note

PART = 1 << 24
"""Numbers that are copied from a GPU at once."""


def hash_weights(module: nn.Module) -> str:
    """The SHA-256 of all parameters and buffers: names, types, shapes and every byte.

    A tensor on torch's meta device has no bytes here; a note on stderr says so.
    """
    named = [
        *module.named_parameters(remove_duplicate=False),
        *module.named_buffers(remove_duplicate=False),
    ]
    tensors = dict(sorted(named))
    absent = [name for name, tensor in tensors.items() if tensor.is_meta]
    if absent:
        print_note(
            f"{len(absent)} weights, as {absent[0]}, are on torch's meta device: a change of their values is "
            "not noticed when a run is resumed"
        )
    whole = hashlib.sha256()
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # hashlib and torch let other threads run
        for (name, tensor), digest in zip(tensors.items(), pool.map(_digest, tensors.values()), strict=True):
            whole.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode() + digest)
    return whole.hexdigest()


def _digest(tensor: Tensor) -> bytes:
    own = hashlib.sha256()
    if not tensor.is_meta:
        for part in tensor.detach().reshape(-1).split(PART):
            own.update(part.cpu().contiguous().view(torch.uint8).numpy().data)
    return own.digest()
