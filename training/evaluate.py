"""python -m training.evaluate --model dense-tiles: how well a trained model predicts held-out clips.

The next frame, sampled from its true past, against copying the last frame and against the mean frame of the
past; in a world with memory also by when each pixel's place was last seen. Then a free run from the first
frames, and where the world's state can be read off a frame, how far it drifts.
"""

import argparse
import json
import sys
from typing import Any, Literal

import numpy as np

AGES = {"never seen": 0, "in view in the last frame": 1, "seen only before the last frame": 2}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m training.evaluate", description=__doc__)
    parser.add_argument("--model", default="dense-tiles", help="a shipped model or the path of a checkpoint")
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


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0, or 2 when the request cannot be met. The last line is JSON."""
    options = parser().parse_args(arguments)
    try:
        for name in ("clips", "steps", "context"):
            if getattr(options, name) < 1:
                raise ValueError(f"--{name} must be at least 1, got {getattr(options, name)}")
        result = evaluate(**vars(options))
    except (ValueError, OSError) as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 2
    for name, value in result.items():
        print(f"{name:75} {value}")
    print(json.dumps(result))
    return 0


def evaluate(
    model: str,
    clips: int,
    steps: int,
    context: int,
    frames: int | None,
    videos: str | None,
    window: int | None,
    sink: int | None,
    guidance: float,
    negative: Literal["condition", "context"],
    seed: int,
    device: str,
) -> dict[str, float]:
    """PSNR in dB and SSIM, mean over frames and clips, squared errors by memory, and the state's error."""
    import models
    from diffusion.guidance import guided
    from training._scores import FIRST_CLIP, drawn
    from videos import load as load_videos
    from videos.scores import psnr, ssim

    reach: dict[str, Any] = {"window": window, "sink": sink}
    network = models.load(model, device, **{name: v for name, v in reach.items() if v is not None})
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
        error = world.state_error(free, state)[:, -1].mean()
        result[f"free run, last frame: {world.STATE_ERROR}"] = float(error)
    return {name: round(value, 4) for name, value in result.items()}


def _by_memory(guess: np.ndarray, target: np.ndarray, seen: np.ndarray) -> dict[str, float]:
    error = ((guess - target) ** 2).mean(axis=2)
    rows = {f"squared error, pixels {age}": float(error[seen == code].mean()) for age, code in AGES.items()}
    return rows


if __name__ == "__main__":
    sys.exit(main())
