"""How each shipped model is trained: long settings in one frozen dataclass, checked when it is made.

`recipe("dense-tiles", steps=500)` raises ValueError for a value that cannot be. Nothing here imports torch.
"""

from dataclasses import dataclass, field, replace
from typing import Any, get_type_hints

from framelens.records.checks import check, check_types
from framelens.training.rules import ARITHMETIC as ARITHMETIC
from framelens.training.rules import MOST_COUNT as MOST_COUNT
from framelens.training.rules import RULES


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights of a training, apart from the device; checked by RULES."""

    network: str
    """A file of models/."""
    videos: str
    """A file of videos/."""
    preset: str = "tiny"
    """Geometry of the network; channels, height, width and conditions come from the videos."""
    architecture: dict[str, Any] = field(default_factory=dict)
    """Changes to the preset's configuration, such as fusion or depths."""
    initial: str = ""
    """A model whose weights training starts from; empty for fresh ones."""
    teacher: str = ""
    """A model to distil to few steps; empty to train on the videos alone."""
    objective: str = "consistency"
    """How a student learns from its teacher: consistency (training/distil.py) on clips of the videos, or dmd,
    distribution matching on clips that the student generates itself (training/self_forcing.py)."""
    levels: int = 20
    """Noise levels of a distillation: the steps that its teacher would make."""
    student_steps: int = 4
    """Steps with which a distilled model is sampled, each with fresh noise."""
    given_frames: int = 1
    """First frames that a dmd student is given; it generates the later ones of a clip."""
    fake_steps: int = 5
    """Steps of the fake score for each step of a dmd student."""
    fake_learning_rate: float = 1e-4
    """AdamW's learning rate of the fake score."""
    saturation_rise: float = 0.1
    """A dmd training stops where the saturation is higher by more than this than at its first validation,"""
    saturation_patience: int = 3
    """at this number of validations in a row."""
    train_only: str = ""
    """The part of the network that is trained, such as `decoder`; empty for all of it."""
    lora_rank: int = 0
    """Rank of adapters (LoRA) of attention and MLP in the blocks, which AdamW trains at `learning_rate`, also
    where `muon` is on; all other weights are frozen. 0: no adapters, all weights are trained."""
    lora_alpha: float = 32.0
    """Adapters count lora_alpha / lora_rank times."""
    cut_from: int | None = None
    """First layer of a dense network that is cut off from the past, with all deeper ones: there a noisy frame
    sees itself alone (a frame-diagonal mask, Bai et al. 2026, section 4). None: no cut."""
    steps: int = 3000
    """Optimiser steps."""
    batch: int = 6
    """Clips per step."""
    frames: int = 12
    """Frames per clip."""
    learning_rate: float = 2e-3
    """AdamW's peak learning rate: embeddings, norms, biases, modulation, and matrices when `muon` is off."""
    muon: bool = True
    """Train the blocks' attention and MLP matrices with Muon (torch.optim.Muon), which needs fewer steps."""
    muon_learning_rate: float = 3e-3
    """Muon's peak learning rate, scaled to match AdamW's update size."""
    decoder_rate: float = 1.0
    """Learning rate of a separated model's decoder, relative to the rest."""
    beta1: float = 0.9
    """AdamW's decay of the running mean of gradients."""
    beta2: float = 0.99
    """AdamW's decay of the running mean of squared gradients."""
    weight_decay: float = 0.0
    """Weight decay of AdamW and Muon."""
    noise_draws: int = 1
    """Noise levels per frame and step; more than one shares a separated model's encoder pass."""
    clean_history: float = 1.0
    """Share of frames that later frames see clean in training; they see the others at their noise level."""
    warmup: int = 50
    """Steps of linear warm-up."""
    decay_share: float = 0.35
    """Share of the steps, at the end, over which the learning rate falls linearly to 2 %."""
    clip: float = 1.0
    """Largest norm of the gradient; a longer one is scaled down to it."""
    ema: float = 0.998
    """Decay of the averaged weights, which are the weights that the training saves."""
    ema_warmup: bool = True
    """Average over fewer steps at the beginning: the decay is at most (1 + step) / (10 + step)."""
    uniform_share: float = 0.2
    """Share of noise levels drawn uniformly; the rest is logit-normal(0, 1)."""
    condition_dropout: float = 0.1
    """Share of clips that are trained with the null condition, for classifier-free guidance."""
    autocast: str = "bfloat16"
    """Arithmetic of the forward pass, on CPU and GPU; weights and optimiser stay float32."""
    accumulate: int = 1
    """Passes in which a process takes its clips of a step: more need less memory, for the same gradient."""
    draws_apart: bool = False
    """Of a separated network: backpropagate one noise draw after the other, which needs the memory of one.
    The encoder still runs once; the prefix fusion reads its context once for each draw."""
    recompute: bool = False
    """Recompute each block in the backward pass instead of keeping its activations."""
    seed: int = 0
    """Decides the initial weights, the clips and the noise."""
    save_every: int = 25
    """Steps between saved states: the most that a killed process loses."""
    keep_every: int = 200
    """Steps between checkpoints that are kept, each with a validation; step 0 is one of them."""
    sample_every: int = 1000
    """Steps between sample videos."""

    def __post_init__(self):
        check_types(vars(self), get_type_hints(Recipe))
        check(self, RULES)

    def as_control(self) -> "Recipe":
        """The same training of the initial model as it is: the control of a recipe that separates it."""
        return replace(self, network=CONTINUED, architecture={}, noise_draws=1, draws_apart=False)


SEPARATED = "separated"
"""The network of a recipe that separates its initial model, of any family, into an encoder and a decoder."""
CONTINUED = "continued"
"""The network of a recipe that trains its initial model on as it is, of any family."""
LAYERS = ("encoder_layers", "decoder_layers", "head")
"""The architecture of such a recipe."""
ASK: dict[str, Any] = {"fusion": "prefix", "query": "noise", "start_token": False}
"""The architecture of a separated network from scratch whose encoder asks for the coming frame."""
SPLIT: dict[str, Any] = {"fusion": "residual", "query": "noise", "start_token": False}
"""The architecture of a separated network that takes its layers from a dense one."""

TUNED: dict[str, Any] = {
    "steps": 800,
    "noise_draws": 2,
    "warmup": 20,
    "learning_rate": 7e-4,
    "muon_learning_rate": 1.5e-3,
    "ema": 0.99,
    "keep_every": 100,
}
"""The settings of a fine-tune of a trained network."""

RECIPES = {
    "dense-tiles": Recipe("dense", "tiles", frames=10, steps=2650),
    "dense-digits": Recipe("dense", "digits", muon=False),
    "dense-tiles-cut": Recipe(
        "dense",
        "tiles",
        frames=10,
        initial="dense-tiles",
        cut_from=5,
        steps=100,
        warmup=10,
        learning_rate=2e-4,
        muon_learning_rate=3e-4,
        ema=0.95,
        keep_every=50,
    ),
    "scd-tiles": Recipe("scd", "tiles", architecture=ASK, frames=10, steps=2650, noise_draws=2),
    "scd-digits": Recipe("scd", "digits", architecture=ASK | {"query": "frame"}, muon=False, noise_draws=2),
    "dense-doom": Recipe("dense", "doom", batch=4, frames=10, steps=1800, autocast="float32"),
    "wan-panorama": Recipe("wan", "panorama", frames=10, steps=1200, autocast="float32"),
    "split-tiles": Recipe(
        "scd",
        "tiles",
        architecture=SPLIT | {"encoder_layers": 6, "decoder_layers": 9, "head": 3},
        frames=10,
        initial="dense-tiles",
        **TUNED,
    ),
    "split-digits": Recipe(
        "scd",
        "digits",
        architecture=SPLIT | {"encoder_layers": 11, "decoder_layers": 6, "head": 3},
        initial="dense-digits",
        **TUNED,
    ),
}

RECIPES |= {
    "scd-doom": replace(RECIPES["dense-doom"], network="scd", architecture=ASK, noise_draws=2),
    "scd-tiles-past": replace(RECIPES["scd-tiles"], architecture={"fusion": "prefix"}),
    "scd-tiles-ask-frame": replace(RECIPES["scd-tiles"], architecture=RECIPES["scd-digits"].architecture),
    "scd-digits-ask": replace(RECIPES["scd-digits"], architecture=ASK),
    "split-doom": replace(
        RECIPES["split-tiles"], videos="doom", initial="dense-doom", batch=4, steps=400, autocast="float32"
    ),
    "scd-digits-past": replace(RECIPES["scd-digits"], architecture={"fusion": "prefix"}),
}
RECIPES["split-wan-panorama"] = replace(
    Recipe(SEPARATED, "panorama", frames=10, initial="wan-panorama", autocast="float32"),
    architecture={"encoder_layers": 9, "decoder_layers": 6, "head": 3},
    **TUNED | {"steps": 400},
)
RECIPES |= {f"{RECIPES[f'split-{name}'].initial}-more": RECIPES[f"split-{name}"].as_control()
            for name in ("tiles", "digits", "wan-panorama")}  # fmt: skip
FEW: dict[str, Any] = {
    "steps": 600,
    "warmup": 20,
    "muon": False,
    "learning_rate": 3e-4,
    "ema": 0.95,
    "ema_warmup": False,
    "condition_dropout": 0.0,
    "keep_every": 100,
}
"""The settings of a distillation to few steps."""
RECIPES["split-tiles-few"] = replace(
    RECIPES["split-tiles"], initial="split-tiles", teacher="split-tiles", train_only="decoder", **FEW
)
RECIPES["split-wan-panorama-few"] = replace(
    RECIPES["split-wan-panorama"],
    initial="split-wan-panorama",
    teacher="split-wan-panorama",
    train_only="decoder",
    **FEW | {"steps": 300},
)
RECIPES["dense-tiles-few"] = replace(
    RECIPES["dense-tiles"], initial="dense-tiles", teacher="dense-tiles", **FEW
)

MATCHED: dict[str, Any] = {
    "objective": "dmd",
    "steps": 200,
    "warmup": 10,
    "learning_rate": 5e-5,
    "beta1": 0.0,
    "beta2": 0.999,
    "keep_every": 20,
}
"""The settings of distribution matching, beside those of a distillation; short, for longer ones saturate."""
RECIPES["split-tiles-dmd"] = replace(RECIPES["split-tiles-few"], initial="split-tiles-few", **MATCHED)
RECIPES["dense-tiles-dmd"] = replace(RECIPES["dense-tiles-few"], **MATCHED)

RELEASED = {
    "batch": 16, "steps": 1_000_000, "muon": False, "learning_rate": 1e-4, "decoder_rate": 2.0,
    "beta1": 0.9, "beta2": 0.999, "warmup": 10_000, "decay_share": 0.0, "ema": 0.9999, "ema_warmup": False,
    "uniform_share": 0.0, "noise_draws": 2, "clean_history": 0.1, "recompute": True,
}  # fmt: skip
"""The settings of the released recipe for Minecraft (Bai et al. 2026, code). There most of the history is
noisy; in the paper, and in every other recipe here, it is clean."""


def recipe(name: str, **changes) -> Recipe:
    """A shipped model's recipe with changes; an unknown name raises ValueError with those that exist."""
    if name not in RECIPES:
        raise ValueError(f"no recipe is called {name!r}; there are {', '.join(RECIPES)}")
    return replace(RECIPES[name], **changes)
