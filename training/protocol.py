"""The options of `framelens evaluate` for long predictions and for scores on networks, and its --steps.

    add_protocol_options(parser)                        # --predict, --best-of, --features, --vae, --lpips
    frames = frames_of(options, source)                 # of a clip

Published tables for Minecraft and DMLab have PSNR, SSIM and LPIPS for 144 given and 156 predicted frames, the
best of a few samples of each clip, and FVD for 36 and 264 (Yan et al. 2023).
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from framelens.records.checks import FRAMES, Rule, between, optional

if TYPE_CHECKING:  # it imports torch, which --help does without
    from framelens.diffusion.source import Source

MOST_RUNS = 1000


def _with_frames(rule: Rule) -> Rule:
    """The rule of --predict, which does not go with --frames."""
    return Rule(
        lambda value, options: rule.holds(value, options) and (value is None or options.frames is None),
        lambda name, value, options: (
            rule.sentence(name, value, options)
            if options.frames is None
            else f"{name} and --frames both say how long clips are: give one"
        ),
    )


PROTOCOL_RULES = {"predict": _with_frames(optional(FRAMES)), "best_of": optional(between(1, MOST_RUNS))}


def add_protocol_options(parser: argparse.ArgumentParser) -> None:
    """Adds --predict, --best-of, --features, --vae and --lpips."""
    long = parser.add_argument_group("long predictions")
    long.add_argument(
        "--predict", type=int, metavar="N",
        help="frames predicted after the --context ones, in place of --frames: TECO's protocol is "
        "--context 144 --predict 156, and 36 and 264 for distances of distributions",
    )  # fmt: skip
    long.add_argument(
        "--best-of", type=int, metavar="K",
        help="also means over the frames of a free run, of the best of K free runs of each clip, by frame",
    )  # fmt: skip
    scores = parser.add_argument_group("more scores")
    scores.add_argument(
        "--features", metavar="FILE.py:FUNCTION",
        help="also Frechet and kernel distance on features: of efficientnet-lite0, or the function gives a "
        "torch module or another callable, [b c h w] in [-1, 1] -> [b d]; the file is code, and it is run",
    )  # fmt: skip
    scores.add_argument(
        "--vae", help="score latents as pixels: a DC-AE of diffusers or of FAR, by which they are decoded"
    )
    scores.add_argument(
        "--lpips", type=Path, metavar="FILE",
        help="also LPIPS, with torchvision's weights of AlexNet or VGG-16 from this file",
    )  # fmt: skip


def frames_of(options: argparse.Namespace, source: "Source") -> int:
    """The frames of a clip: as asked, else as in training. ValueError where none is left to predict, or where
    neither says how many there are.
    """
    if options.predict is not None:
        return options.context + options.predict
    frames = int(options.frames or source.frames)
    if options.context >= frames:
        raise ValueError(f"--context must be below the {frames} frames of a clip, got {options.context}")
    return frames


def parse_steps(text: str | None) -> list[int] | None:
    """The steps of every frame, or of the first generated chunk and of later ones; ValueError otherwise."""
    if text is None:
        return None
    counts = text.split(",")
    if len(counts) > 2 or not all(count.strip().removeprefix("-").isdecimal() for count in counts):
        raise ValueError(
            f"--steps is a whole number, or two such as 4,2 for the first generated chunk and later ones, "
            f"got {text!r}"
        )
    return [int(count) for count in counts]
