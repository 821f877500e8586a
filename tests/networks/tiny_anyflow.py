"""diffusers' AnyFlow network, tiny. For tests only."""

from typing import Any

import diffusers
import torch
from precision import as_default, single_precision

SIZES: dict[str, Any] = {
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "in_channels": 4,
    "out_channels": 4,
    "text_dim": 16,
    "freq_dim": 32,
    "ffn_dim": 48,
    "num_layers": 2,
    "rope_max_seq_len": 64,
}
SAID = {"height": 8, "width": 8, "text_tokens": 3}


def stock(**changes):
    """diffusers' network with random weights none of which is special."""
    with torch.random.fork_rng(devices=[]), torch.no_grad(), single_precision():
        torch.manual_seed(0)
        network = diffusers.AnyFlowFARTransformer3DModel(**{**SIZES, **changes})
        for weight in network.parameters():
            weight += 0.1 * torch.randn(weight.shape)
    return as_default(network.eval().requires_grad_(False))
