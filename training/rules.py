"""What each setting of a recipe must meet, one rule for each field: RULES, which a recipe checks itself by.

Whether the network, its architecture and the videos exist is asked when the network is built
(training/build.py), which needs torch. Light to import: no torch.
"""

import math
from typing import Any

from framelens.records.checks import (
    FRAMES,
    MOST_FRAMES,
    POSITIVE,
    SEED,
    Rule,
    at_least,
    between,
    must,
    one_of,
    optional,
)

ARITHMETIC = ("float32", "bfloat16", "float16")
"""What a forward pass may compute in."""
OBJECTIVES = ("consistency", "dmd")
"""What a student is trained to, by training/distil.py and training/self_forcing.py."""
MOST_COUNT = 1_000_000_000
"""The largest number of steps; the memory of clips is checked when they are made."""


def _refuse_dmd(settings: Any) -> str:
    """Why such a recipe cannot be trained by distribution matching; empty where it can."""
    if not settings.teacher:
        return "needs a teacher, the model whose clips are matched: give teacher=..."
    if settings.train_only == "encoder":
        return (
            "trains the pass that denoises, which train_only=encoder leaves as it is: give decoder, or none"
        )
    if settings.cut_from is not None:
        return "rolls out frame by frame, where cut_from cuts nothing: give cut_from=null"
    if settings.given_frames >= settings.frames:
        return f"generates the frames after given_frames={settings.given_frames}, of {settings.frames}"
    return ""


SHARE = must(lambda value: 0 <= value <= 1, "be from 0 to 1")
DECAY = must(lambda value: 0 <= value < 1, "be from 0 to below 1")
COUNTS = ("steps", "batch", "accumulate", "noise_draws", "warmup", "save_every", "keep_every", "sample_every")
COUNTS += ("fake_steps", "saturation_patience")
RATES = ("learning_rate", "muon_learning_rate", "decoder_rate", "fake_learning_rate")
RULES: dict[str, Rule] = {
    **dict.fromkeys(COUNTS, between(1, MOST_COUNT)),
    "frames": FRAMES,
    **dict.fromkeys((*RATES, "clip", "saturation_rise", "lora_alpha"), POSITIVE),
    **dict.fromkeys(("beta1", "beta2", "ema"), DECAY),
    **dict.fromkeys(("clean_history", "decay_share", "uniform_share", "condition_dropout"), SHARE),
    "weight_decay": must(lambda value: 0 <= value < math.inf, "be 0 or more and finite"),
    "cut_from": optional(at_least(0)),
    "levels": between(2, 1000),
    "student_steps": between(1, 1000),
    "given_frames": between(0, MOST_FRAMES),
    "draws_apart": Rule(
        lambda value, settings: not (value and settings.teacher),
        lambda name, value, _: f"{name}={value} is for training on videos: a distillation has one draw",
    ),
    "lora_rank": Rule(
        lambda value, settings: value == 0 or (1 <= value <= MOST_COUNT and settings.initial != ""),
        lambda name, value, _: (
            f"{name} must be from 0 to {MOST_COUNT}, got {value}"
            if not 0 <= value <= MOST_COUNT
            else f"{name}={value} changes a trained network by adapters: give initial=..., or {name}=0"
        ),
    ),
    "train_only": one_of("part", lambda: ("", "encoder", "decoder")),
    "autocast": one_of("arithmetic", lambda: ARITHMETIC),
    "seed": SEED,
    "objective": Rule(
        lambda value, settings: value in OBJECTIVES and not (value == "dmd" and _refuse_dmd(settings)),
        lambda name, value, settings: (
            f"{name}={value} {_refuse_dmd(settings)}"
            if value in OBJECTIVES
            else f"no {name} is called {value!r}; there are {', '.join(OBJECTIVES)}"
        ),
    ),
}
