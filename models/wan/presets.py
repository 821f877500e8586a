"""Wan networks that are trained here: presets, the network of a configuration, and files in Wan's names."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from framelens.diffusion.schedule import Sampling
from framelens.models.parts.config import preset
from framelens.models.wan.config import WanConfig
from framelens.models.wan.names import for_wan
from framelens.models.wan.network import Wan
from framelens.records import replace_file
from framelens.records.extras import extra

PRESETS = {
    "tiny": WanConfig(
        layers=12,
        channels=3,
        height=20,
        width=20,
        patch=4,
        heads=4,
        d_model=128,
        mlp_width=768,
        text_tokens=1,
        text_width=8,
        frequencies=64,
        rope_axes=(12, 10, 10),
        rope_frames=256,
        is_causal=True,
    ),
    "1.3b": WanConfig(
        layers=30,
        channels=16,
        height=60,
        width=104,
        patch=2,
        heads=12,
        d_model=1536,
        mlp_width=8960,
        text_tokens=512,
        text_width=4096,
        rope_axes=(44, 42, 42),
        is_causal=True,
    ),
}
USUAL_STEPS = 25


def config(name: str, **changes: Any) -> WanConfig:
    """A preset's configuration with changes; an unknown preset raises ValueError with those that exist."""
    return preset(PRESETS, "wan", name, changes)


def build(config: WanConfig | Mapping[str, Any]) -> Wan:
    """The network with freshly initialised weights, sampled at evenly spaced noise levels.

    ValueError for a configuration without a prompt, which each block of a Wan network attends to.
    """
    chosen = config if isinstance(config, WanConfig) else WanConfig.from_values(config)
    if not chosen.text_tokens:
        raise ValueError("a wan network reads prompts: text_tokens and text_width must be at least 1")
    with extra("families"):
        from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

    return Wan(WanTransformer3DModel(**chosen.for_diffusers()), chosen, Sampling(USUAL_STEPS))


def write_released(model: Wan, path: Path | str) -> Path:
    """Writes the weights alone, in Wan's own names, as Self-Forcing and later models release theirs (.pt).

    What such a file does not store, the reader has to state: heads, size of frames, prompt's tokens.
    """
    path = Path(path)
    weights = {f"model.{name}": weight.cpu() for name, weight in for_wan(model.state_dict()).items()}
    replace_file(path, lambda part: torch.save({"generator_ema": weights}, part))
    return path
