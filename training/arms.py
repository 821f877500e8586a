"""The networks that are compared at an equal budget: a dense one and separated ones, all small.

Light to import: no torch.
"""

from typing import Any

from framelens.training.recipes import ASK, RECIPES, Recipe

SMALL: dict[str, Any] = {"d_model": 64, "heads": 4, "rope_axes": (4, 6, 6)}
"""Changes to the tiny presets: half the width, so that a laptop trains all arms."""


def _separate(fusion: str, encoder: int, decoder: int) -> dict[str, Any]:
    """The architecture of a separated network with that many layers."""
    return {"fusion": fusion, "encoder_layers": encoder, "decoder_layers": decoder}


ARMS: dict[str, dict[str, Any]] = {
    "dense 12": {},
    "prefix 8+4": _separate("prefix", 8, 4),
    "token_concat 8+4": _separate("token_concat", 8, 4),
    "token_concat_projected 8+4": _separate("token_concat_projected", 8, 4),
    "channel_concat 8+4": _separate("channel_concat", 8, 4),
    "add 8+4": _separate("add", 8, 4),
    "prefix 10+2": _separate("prefix", 10, 2),
    "prefix 6+6": _separate("prefix", 6, 6),
    "prefix asking 8+4": _separate("prefix", 8, 4) | ASK,
    "prefix asking 6+6": _separate("prefix", 6, 6) | ASK,
}
"""Architectures by name: fusion, whether the encoder asks for the coming frame, encoder + decoder layers.
Each has 12 layers."""


def recipe_of(arm: str, world: str, seed: int, steps: int) -> Recipe:
    """The recipe of that arm; clips, steps, optimiser and learning rate are the same for all arms.

    The learning rate is constant and the weights are averaged, so that the networks can be compared after any
    number of steps. A separated network trains on two noise levels per frame and step with one pass of its
    encoder, which a dense network cannot do; the comparison measures the seconds of a step.
    """
    separated, shipped = "fusion" in ARMS[arm], f"dense-{world}"
    return Recipe(
        "scd" if separated else "dense",
        world,
        architecture=SMALL | ARMS[arm],
        steps=steps,
        frames=8,
        muon=RECIPES[shipped].muon if shipped in RECIPES else Recipe.muon,
        noise_draws=2 if separated else 1,
        decay_share=0.0,
        ema=0.98,
        seed=seed,
        save_every=50,
        keep_every=50,
        sample_every=steps + 1,
    )
