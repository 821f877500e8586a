"""A tiny SCD in every way of making and taking in features. For tests only."""

import tiny
import torch
from precision import as_default, single_precision

from framelens.models import scd
from framelens.models.parts.fusion import FUSIONS

ASKING = {"query": "noise", "start_token": False}
WAYS = {fusion: {"fusion": fusion} for fusion in FUSIONS} | {"residual": {"fusion": "residual", "head": 1}}
NOISE, FRAME, MARK = ASKING, ASKING | {"query": "frame"}, ASKING | {"query": "learned"}
ASKED = {
    "token_concat": NOISE,
    "prefix": NOISE,
    "residual": NOISE,
    "add": NOISE | {"query_layer": 1},
    "channel_concat": MARK,
}
WAYS |= {f"{way}, asking": WAYS[way] | asked for way, asked in ASKED.items()}
WAYS |= {"prefix, asking by frame": WAYS["prefix"] | FRAME}
WAYS |= {"residual, asking by frame": WAYS["residual"] | FRAME | {"query_layer": 1}}
"""How features are made and read."""


def model(way: str = "token_concat", conditions: int = 3, std: float = 0.2, **changes) -> scd.SCD:
    """Two layers and two; all weights are drawn, so that every path counts."""
    layers = {"encoder_layers": 2, "decoder_layers": 2}
    config = scd.config("tiny", **tiny.SHAPE | layers | {"conditions": conditions} | WAYS[way] | changes)
    with torch.random.fork_rng(devices=[]), single_precision():
        torch.manual_seed(0)
        network = scd.build(config)
        for weight in network.parameters():
            torch.nn.init.normal_(weight, std=std)
    return as_default(network.eval().requires_grad_(False))
