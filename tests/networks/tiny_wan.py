"""Tiny Wan networks in the formats of the real ones: diffusers folders, and .pt files of Wan's own code."""

import json
from pathlib import Path
from typing import Any

import tiny
import torch
from diffusers.models.transformers.transformer_skyreels_v2 import SkyReelsV2Transformer3DModel
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from precision import as_default, single_precision
from torch import nn

from framelens import models

FRAMES, CHANNELS, SIDE, TOKENS, WIDTH = 6, 4, 4, 5, 6
"""Of the clips and prompts: latents [b 6 4 4 4], 4 tokens a frame; 5 tokens of a prompt, 6 wide."""
SAID = {"height": SIDE, "width": SIDE, "text_tokens": TOKENS}
SIZES: dict[str, Any] = {
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "in_channels": CHANNELS,
    "out_channels": CHANNELS,
    "text_dim": WIDTH,
    "freq_dim": 32,
    "ffn_dim": 32,
    "num_layers": 2,
    "rope_max_seq_len": 64,
}
# What the released files call what diffusers calls otherwise; the order of the two norms counts.
ORIGINAL = (
    ("condition_embedder.time_embedder.linear_1.", "time_embedding.0."),
    ("condition_embedder.time_embedder.linear_2.", "time_embedding.2."),
    ("condition_embedder.time_proj.", "time_projection.1."),
    ("condition_embedder.text_embedder.linear_1.", "text_embedding.0."),
    ("condition_embedder.text_embedder.linear_2.", "text_embedding.2."),
    (".attn1.", ".self_attn."),
    (".attn2.", ".cross_attn."),
    (".to_q.", ".q."),
    (".to_k.", ".k."),
    (".to_v.", ".v."),
    (".to_out.0.", ".o."),
    (".norm2.", ".norm3."),
    ("ffn.net.0.proj.", "ffn.0."),
    ("ffn.net.2.", "ffn.2."),
    ("proj_out.", "head.head."),
    ("fps_projection.net.0.proj.", "fps_projection.0."),
    ("fps_projection.net.2.", "fps_projection.2."),
)


def stock(kind: type = WanTransformer3DModel, seed: int = 0, **changes: Any) -> Any:
    """A stock network none of whose weights is small, so that every path counts."""
    with torch.random.fork_rng(devices=[]), torch.no_grad(), single_precision():
        torch.manual_seed(seed)
        network = kind(**(SIZES | changes))
        for weight in network.parameters():
            weight += 0.1 * torch.randn(weight.shape)
    return as_default(network.eval().requires_grad_(False))


def skyreels(seed: int = 0, **changes: Any) -> Any:
    """A stock SkyReels network that takes the frame rate."""
    return stock(SkyReelsV2Transformer3DModel, seed, **{"inject_sample_info": True, **changes})


def original(network: nn.Module) -> dict[str, torch.Tensor]:
    """The weights under the names of Wan's own code."""
    return {_original(name): tensor for name, tensor in network.state_dict().items()}


def _original(name: str) -> str:
    if name.endswith("scale_shift_table"):
        return name.replace("scale_shift_table", "modulation" if "blocks" in name else "head.modulation")
    for theirs, ours in ORIGINAL:
        name = name.replace(theirs, ours)
    return name


def folder(path: Path, network: Any) -> Path:
    """A folder as diffusers writes it."""
    network.save_pretrained(path)
    return path


def pipeline(path: Path, networks: dict[str, Any], flow_shift: float = 3.0, **index: Any) -> Path:
    """A pipeline's folder with these networks in their subfolders, and a scheduler."""
    for name, network in networks.items():
        folder(path / name, network)
    (path / "scheduler").mkdir()
    (path / "scheduler" / "scheduler_config.json").write_text(json.dumps({"flow_shift": flow_shift}))
    (path / "model_index.json").write_text(json.dumps({"_class_name": "WanPipeline", **index}))
    return path


def released(path: Path, weights: dict[str, torch.Tensor], **others: Any) -> Path:
    """A file as Self-Forcing and those after it release them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"generator_ema": {f"model.{name}": t for name, t in weights.items()}, **others}, path)
    return path


def load(path: Path, **asked: Any) -> Any:
    """The model that loading gives for that path."""
    with single_precision():
        model = models.load(str(path), **{**SAID, **asked})
    return model if "dtype" in asked else as_default(model)


def prompt(batch: int = 2, seed: int = 3, tokens: int = TOKENS) -> torch.Tensor:
    """Embeddings of prompts [b t w]."""
    return tiny.draw(batch, tokens, WIDTH, seed=seed)


def clip(frames: int = FRAMES, batch: int = 2, seed: int = 1) -> torch.Tensor:
    """Latents [b f c h w]."""
    return tiny.draw(batch, frames, CHANNELS, SIDE, SIDE, seed=seed)


def stock_pass(network: Any, x: torch.Tensor, timestep: torch.Tensor, text: torch.Tensor, **others: Any):
    """What the stock network says of a clip [b f c h w], [b f c h w]."""
    out = network(x.transpose(1, 2), timestep, text, return_dict=False, **others)[0]
    return out.transpose(1, 2)


def largest(a: torch.Tensor, b: torch.Tensor) -> float:
    """The largest difference."""
    return (a - b).abs().max().item()


SIGMA, TEXT = torch.tensor([0.3, 0.85]), prompt()


def levels(chunk, batch=2):
    """A noise level for each chunk of a clip, [b f]."""
    generator = torch.Generator().manual_seed(5)
    return torch.rand(batch, FRAMES // chunk, generator=generator).repeat_interleave(chunk, dim=1)


def chunk_by_chunk(model, clean, noisy, sigma, cond=None):
    """The velocity of noisy chunks given the clean past, by cached passes."""
    cond = prompt() if cond is None else cond
    chunk, context, out = model.geometry.frames_per_chunk, model.start(len(clean), cond), []
    for first in range(0, clean.shape[1], chunk):
        span = slice(first, first + chunk)
        out.append(model.denoise(noisy[:, span], sigma[:, first], context))
        context = model.encode(clean[:, span], context)
    return torch.cat(out, dim=1)
