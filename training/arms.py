"""What is compared at an equal budget: the dense network and its separated twins, small enough for a laptop.

Light to import: no torch.
"""

from typing import Any

from framelens.training.recipes import RECIPES, Recipe

SMALL: dict[str, Any] = {"d_model": 64, "heads": 4, "rope_axes": (4, 6, 6)}
"""The tiny presets at half their width, so that many can be trained."""


def _separated(fusion: str, encoder: int, decoder: int) -> dict[str, Any]:
    return {"fusion": fusion, "encoder_layers": encoder, "decoder_layers": decoder}


ARMS: dict[str, dict[str, Any]] = {
    "dense 12": {},
    "prefix 8+4": _separated("prefix", 8, 4),
    "token_concat 8+4": _separated("token_concat", 8, 4),
    "token_concat_projected 8+4": _separated("token_concat_projected", 8, 4),
    "channel_concat 8+4": _separated("channel_concat", 8, 4),
    "add 8+4": _separated("add", 8, 4),
    "prefix 10+2": _separated("prefix", 10, 2),
    "prefix 6+6": _separated("prefix", 6, 6),
}
"""Changes of architecture by name: fusion and layers, of the encoder and of the decoder. 12 layers each."""


def recipe_of(arm: str, world: str, seed: int, steps: int) -> Recipe:
    """How that arm is trained: clips, steps, optimiser and learning rate are the same for all.

    The learning rate is constant and weights are averaged, so that every step is an end and any budget can be
    compared. A separated network draws two noise levels per frame and step from one pass of its encoder,
    which a dense one cannot: the cost of a step is measured and compared, not assumed.
    """
    separated = "fusion" in ARMS[arm]
    return Recipe(
        "scd" if separated else "dense",
        world,
        architecture=SMALL | ARMS[arm],
        steps=steps,
        frames=8,
        muon=RECIPES[f"dense-{world}"].muon,
        noise_draws=2 if separated else 1,
        decay_share=0.0,
        ema=0.98,
        seed=seed,
        save_every=50,
        keep_every=50,
        sample_every=steps + 1,
    )
