"""Random weights in the layout of the authors' code: SCD, FAR and FAR-Long, tiny. For tests only."""

import far_long_reference
import official_reference
import torch

CHANNELS, LAYERS, COARSE = 4, 2, 2


def filled(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> dict[str, torch.Tensor]:
    """Tensors of those shapes, none of them zero; the embedding of time is as small as training starts it."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in sorted(shapes.items()):
        std = 0.02 if name.split(".")[-3:-2] == ["timestep_embedder"] else 0.1
        is_gain = len(shape) == 1 and name.endswith("weight")
        weights[name] = is_gain + std * torch.randn(shape, generator=generator, dtype=torch.float32)
    return weights


def scd_weights(combine="token_concat", kind="action", width=128, values=CHANNELS, norm_out=True):
    """Weights of SCD, 2 + 1 layers; `kind` is "action", "label" or None."""
    table = None if kind is None else (kind, 5)
    return filled(official_reference.scd_shapes(width, values, 2, 1, combine, table, norm_out))


def far_weights(kind=None, width=128, values=CHANNELS):
    """Weights of FAR, 2 layers."""
    return filled(official_reference.far_shapes(width, values, 2, None if kind is None else (kind, 5)))


def far_long_weights(rows=5, width=64, coarse=COARSE, patch=1):
    """Weights of FAR-Long, 2 layers, with rows of actions."""
    return filled(far_long_reference.shapes(width, CHANNELS, LAYERS, coarse, patch, rows))
