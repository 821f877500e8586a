"""The configuration of FAR's DC-AE, read from its tensors, since its weights have no configuration file.

Gu et al. 2025 trained three of one pattern, with 8, 16 and 32 pixels per latent: no block at full resolution,
then residual blocks (in the decoder with batch norm and ReLU), and EfficientViT blocks from an eighth of the
size on.
"""

import re
from pathlib import Path
from typing import Any

from torch import Tensor

SCALING_FACTOR = 0.2889
"""Factor of the latents in all three of FAR's autoencoders (its options/model_cfg/dcae)."""
HEAD_WIDTH = 32
LAYER = re.compile(r"(?:encoder\.down|decoder\.up)_blocks\.\d+\.\d+\.(?:conv1|attn\.to_q)\.weight")


def recognises(weights: dict[str, Tensor]) -> bool:
    """Whether these can be the weights of such an autoencoder."""
    return "encoder.conv_in.conv.weight" in weights and any(map(LAYER.fullmatch, weights))


def far_config(path: Path, weights: dict[str, Tensor]) -> dict[str, Any]:
    """The configuration of diffusers' AutoencoderDC; ValueError if a resolution has no layer."""
    depth = 1 + max(int(name.split(".")[2]) for name in weights if LAYER.fullmatch(name))
    first = [_first_layer(path, weights, number) for number in range(1, depth)]
    widths = [weights[name].shape[1] for name in first]
    attends = [False, *("attn" in name for name in first)]
    blocks = ["EfficientViTBlock" if yes else "ResBlock" for yes in attends]
    return {
        "in_channels": 3,
        "latent_channels": weights["encoder.conv_out.weight"].shape[0],
        "attention_head_dim": HEAD_WIDTH,
        "encoder_block_types": blocks,
        "decoder_block_types": blocks,
        "encoder_block_out_channels": [widths[0], *widths],  # the first resolution has no layer and no tensor
        "decoder_block_out_channels": [widths[0], *widths],
        "encoder_layers_per_block": [_layers(weights, f"encoder.down_blocks.{i}.") for i in range(depth)],
        "decoder_layers_per_block": [_layers(weights, f"decoder.up_blocks.{i}.") for i in range(depth)],
        "encoder_qkv_multiscales": [[]] * depth,
        "decoder_qkv_multiscales": [[]] * depth,
        "decoder_norm_types": ["rms_norm" if yes else "batch_norm" for yes in attends],
        "decoder_act_fns": ["silu" if yes else "relu" for yes in attends],
        "upsample_block_type": "pixel_shuffle",
        "downsample_block_type": "pixel_unshuffle",
        "scaling_factor": SCALING_FACTOR,
    }


def _first_layer(path: Path, weights: dict[str, Tensor], number: int) -> str:
    for name in ("conv1", "attn.to_q"):
        layer = f"encoder.down_blocks.{number}.0.{name}.weight"
        if layer in weights:
            return layer
    raise ValueError(f"{path} is not a DC-AE of FAR: encoder.down_blocks.{number} has no layer")


def _layers(weights: dict[str, Tensor], start: str) -> int:
    return sum(name.startswith(start) and LAYER.fullmatch(name) is not None for name in weights)
