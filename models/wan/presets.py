"""Wan networks with fresh weights, to be trained here: presets, and the network of a configuration."""

from collections.abc import Mapping
from typing import Any

from framelens.diffusion.schedule import Sampling
from framelens.models.parts.config import preset
from framelens.models.wan.config import WanConfig
from framelens.models.wan.network import Wan
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
        text_tokens=2,
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
