"""python -m framelens.training.evaluate --model dense-tiles: how well a model predicts held-out clips.

The next frame, sampled from its true past, against copying the last frame and against the mean frame of the
past; in a world with memory also by when each pixel's place was last seen. Then a free run from the first
frames, and where the world's state can be read off a frame, how far it is from the truth.

    python -m framelens.training.evaluate --model dense-tiles runs/train/dense-tiles-cut --cut-from 5

What cutting layers 5 and deeper off from the past costs, before and after a fine-tune under that cut: every
model is scored whole and cut, side by side.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from framelens.records.commands import exits_as

AGES = {"never seen": 0, "in view in the last frame": 1, "seen only before the last frame": 2}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m framelens.training.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--model", nargs="+", default=["dense-tiles"], help="shipped models or paths of checkpoints"
    )
    parser.add_argument(
        "--cut-from", type=int, metavar="LAYER",
        help="score dense models also with this layer and all deeper ones cut off from the past",
    )  # fmt: skip
    parser.add_argument("--clips", type=int, default=32, help="held-out clips")
    parser.add_argument("--steps", type=int, default=25, help="denoising steps per frame")
    parser.add_argument("--context", type=int, default=4, help="frames before the first predicted one")
    parser.add_argument("--frames", type=int, help="frames of a clip (default: as in training)")
    parser.add_argument("--videos", help="a world of videos/ (default: what the model was trained on)")
    parser.add_argument("--window", type=int, help="past frames in view (default: as the model has it)")
    parser.add_argument("--sink", type=int, help="first frames that stay in view of the window")
    parser.add_argument("--guidance", type=float, default=1.0, help="scale; 1 is none (default: 1)")
    parser.add_argument(
        "--negative", choices=("condition", "context"), default="condition",
        help="what guidance moves away from: no condition, or a disturbed past (separated models)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="decides the noise")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    return parser


@exits_as("evaluate")
def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0, or 2 when the request cannot be met. The last line is JSON."""
    options = vars(parser().parse_args(arguments))
    named = {name: options.pop(name) for name in ("model", "cut_from", "window", "sink")}
    for name in ("clips", "steps", "context"):
        if options[name] < 1:
            raise ValueError(f"--{name} must be at least 1, got {options[name]}")
    networks = opened(**named, device=options["device"])
    scored = {
        name: evaluate(networks[name], **options)
        for name in tqdm(networks, unit="model", leave=False, disable=None)
    }
    print(text(scored))
    print(json.dumps(scored if len(scored) > 1 else next(iter(scored.values()))))
    return 0


def text(scored: Mapping[str, Mapping[str, float]]) -> str:
    """Scores as a table, with a numbered column for each of what was scored."""
    rows = dict.fromkeys(name for scores in scored.values() for name in scores)
    lines = [[row, *(scores.get(row, "") for scores in scored.values())] for row in rows]
    numbers = [f"({number})" for number in range(1, len(scored) + 1)]
    if len(scored) > 1:
        lines.insert(0, ["", *numbers])
    names = [f"{number} {name}" for number, name in zip(numbers, scored, strict=True)] * (len(scored) > 1)
    table = (f"{row:75}" + "".join(f"{value!s:>10}" for value in values) for row, *values in lines)
    return "\n".join([*names, *table])


def opened(
    model: Sequence[str], cut_from: int | None, window: int | None, sink: int | None, device: str
) -> dict[str, Any]:
    """What is to be scored, by name: every model, and every model cut from that layer on."""
    from framelens import models
    from framelens.models.variants.cut import Cut, layers_from

    reach: dict[str, Any] = {"window": window, "sink": sink}
    networks = {}
    for name in model:
        networks[name] = models.load(name, device, **{k: v for k, v in reach.items() if v is not None})
        if cut_from is not None:
            cut = Cut(networks[name], layers_from(networks[name], cut_from))
            networks[f"{name}, cut from {cut_from}"] = cut
    return networks


def evaluate(
    network: Any,
    clips: int,
    steps: int,
    context: int,
    frames: int | None,
    videos: str | None,
    guidance: float,
    negative: Literal["condition", "context"],
    seed: int,
    device: str,
) -> dict[str, float]:
    """PSNR in dB and SSIM, mean over frames and clips, squared errors by memory, and the state's error."""
    from framelens.diffusion.guidance import guided
    from framelens.training.scores import FIRST_CLIP, drawn
    from framelens.videos.scores import psnr, ssim
    from framelens.videos.worlds import load as load_videos

    frames = int(frames or network.source.frames)
    if context >= frames:
        raise ValueError(f"--context must be below the {frames} frames of a clip, got {context}")
    world, sampler = load_videos(videos or network.source.videos), guided(network, guidance, negative)
    batch = world.clips(range(FIRST_CLIP, FIRST_CLIP + clips), frames)
    sampled, free = drawn(sampler, batch, context, steps, seed, device).values()
    past = batch.video.cumsum(1)[:, :-1] / np.arange(1, frames)[:, None, None, None]
    guesses = {"model": sampled, "copy of the last frame": batch.video[:, context - 1 : -1]}
    guesses |= {"mean frame of the past": past[:, context - 1 :]}
    target = batch.video[:, context:]
    result = {
        f"PSNR of the {name} (dB)": float(psnr(guess, target).mean()) for name, guess in guesses.items()
    }
    result["SSIM of the model"] = float(ssim(sampled, target).mean())
    if "in_view_before" in batch.state:
        result |= _by_memory(sampled.clip(-1, 1), target, batch.state["in_view_before"][:, context:])
    result["PSNR of a free run, last frame (dB)"] = float(psnr(free, target)[:, -1].mean())
    if hasattr(world, "state_error"):
        state = {name: values[:, context:] for name, values in batch.state.items()}
        result[f"next frame: {world.STATE_ERROR}"] = float(world.state_error(sampled, state).mean())
        error = world.state_error(free, state)[:, -1].mean()
        result[f"free run, last frame: {world.STATE_ERROR}"] = float(error)
    return {name: round(value, 4) for name, value in result.items()}


def _by_memory(guess: np.ndarray, target: np.ndarray, seen: np.ndarray) -> dict[str, float]:
    error = ((guess - target) ** 2).mean(axis=2)
    rows = {f"squared error, pixels {age}": float(error[seen == code].mean()) for age, code in AGES.items()}
    return rows


if __name__ == "__main__":
    sys.exit(main())
