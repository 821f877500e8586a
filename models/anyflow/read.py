"""AnyFlow's checkpoints: configuration, checks, and the network of diffusers with the weights."""

import inspect
from typing import Any

import torch

from framelens.diffusion.schedule import Sampling
from framelens.models.anyflow.config import Config
from framelens.models.loading.checkpoint import Checkpoint
from framelens.records import read_json_object
from framelens.records.extras import extra

STEPS, SHIFT = 50, 5.0
"""The pipeline's default number of steps, and the shift with which the released networks were trained."""
HEAD = 128
"""Width of a head in all sizes of Wan; a bare state dict does not store it."""


def build_stock(checkpoint: Checkpoint, options: dict[str, Any]) -> tuple[Any, Config, Sampling]:
    """diffusers' network with the weights, our configuration, its sampling. ValueError for others."""
    with extra("families"):
        from diffusers.models.transformers.transformer_anyflow_far import (
            AnyFlowFARTransformer3DModel as Stock,
        )

    known = set(inspect.signature(Stock.__init__).parameters) - {"self"}
    asked = _config_of(checkpoint)
    try:
        with torch.device("meta"):
            stock = Stock(**{name: value for name, value in asked.items() if name in known})
        config = _convert_config(stock.config, options)
    except (KeyError, RuntimeError, TypeError, ValueError, ZeroDivisionError) as error:
        raise ValueError(f"{checkpoint.path}: {error}") from None
    checkpoint.check({name: tuple(tensor.shape) for name, tensor in stock.state_dict().items()})
    stock.load_state_dict(checkpoint.weights, assign=True)
    stock.condition_embedder.delta_emb_gate = torch.tensor([stock.config["gate_value"]])
    return stock, config, Sampling(STEPS, _shift(checkpoint))


def _convert_config(config: Any, options: dict[str, Any]) -> Config:
    """Our configuration from diffusers' one; raises ValueError for sizes that do not fit together."""
    (time, patch, other), (far_time, far_patch, far_other) = config.patch_size, config.compressed_patch_size
    if (time, far_time) != (1, 1) or patch != other or far_patch != far_other:
        raise ValueError(
            f"patches are {config.patch_size} and {config.compressed_patch_size}, expected (1, p, p)"
        )
    return Config(
        channels=config.in_channels,
        patch=patch,
        far_patch=far_patch,
        layers=config.num_layers,
        heads=config.num_attention_heads,
        d_model=config.num_attention_heads * config.attention_head_dim,
        mlp_width=config.ffn_dim,
        text_width=config.text_dim,
        full_chunks=config.full_chunk_limit,
        frequencies=config.freq_dim,
        epsilon=config.eps,
        text_norm=config.cross_attn_norm,
        rope_frames=config.rope_max_seq_len,
        gate=config.gate_value,
        ends=config.deltatime_type,
        **options,
    )


def _config_of(checkpoint: Checkpoint) -> dict[str, Any]:
    """The folder's configuration, or the values that a bare state dict's names and shapes give."""
    if checkpoint.config is not None:
        return checkpoint.config
    shapes = {name: tuple(tensor.shape) for name, tensor in checkpoint.weights.items()}
    try:
        width, channels, *patch = shapes["patch_embedding.weight"]
        return {
            "patch_size": tuple(patch),
            "compressed_patch_size": shapes["far_patch_embedding.weight"][2:],
            "num_attention_heads": width // HEAD,
            "attention_head_dim": HEAD,
            "in_channels": channels,
            "out_channels": channels,
            "text_dim": shapes["condition_embedder.text_embedder.linear_1.weight"][1],
            "freq_dim": shapes["condition_embedder.time_embedder.linear_1.weight"][1],
            "ffn_dim": shapes["blocks.0.ffn.net.0.proj.bias"][0],
            "num_layers": len({name.split(".")[1] for name in shapes if name.startswith("blocks.")}),
            "cross_attn_norm": "blocks.0.norm2.weight" in shapes,
        }
    except (KeyError, ValueError) as error:
        raise ValueError(f"{checkpoint.path} is missing AnyFlow weights: {error}") from None


def _shift(checkpoint: Checkpoint) -> float:
    """The shift of the pipeline's scheduler beside the network; SHIFT without one."""
    file = checkpoint.path.parent / "scheduler" / "scheduler_config.json"
    if checkpoint.config is None or not file.exists():
        return SHIFT
    shift = read_json_object(file).get("shift", 1.0)
    try:
        return float(shift)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{file}: {error}") from None
