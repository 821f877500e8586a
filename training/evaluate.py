"""python -m training.evaluate --model dense-tiles: how well a trained model predicts held-out clips.

The next frame, sampled from its true past, against copying the last frame and against the mean frame of the
past; in a world with memory also by when each pixel's place was last seen.
"""

import argparse
import json
import sys

import numpy as np

AGES = {"never seen": 0, "in view in the last frame": 1, "seen only before the last frame": 2}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m training.evaluate", description=__doc__)
    parser.add_argument("--model", default="dense-tiles", help="a shipped model or the path of a checkpoint")
    parser.add_argument("--clips", type=int, default=32, help="held-out clips")
    parser.add_argument("--steps", type=int, default=25, help="denoising steps per frame")
    parser.add_argument("--context", type=int, default=4, help="frames before the first predicted one")
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
        print(f"{name:45} {value}")
    print(json.dumps(result))
    return 0


def evaluate(model: str, clips: int, steps: int, context: int, seed: int, device: str) -> dict[str, float]:
    """PSNR in dB of the next frame (peak 2, mean over frames), and squared errors by memory."""
    import torch

    import models
    import videos
    from diffusion.sampler import rollout
    from diffusion.schedule import sigma_grid

    network = models.load(model, device)
    metadata = network.source.metadata
    frames = metadata["training"]["recipe"]["frames"]
    if context >= frames:
        raise ValueError(f"--context must be below the {frames} frames of a clip, got {context}")
    first = videos.VALIDATION_SEED + 500_000  # away from the clips that training validates on
    batch = videos.load(metadata["videos"]).clips(range(first, first + clips), frames)
    truth = torch.from_numpy(batch.video).to(device)
    cond = None if batch.actions is None else torch.from_numpy(batch.actions).to(device)
    noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(seed)).to(device)
    wanted = set(range(context, frames))
    sampled = rollout(network, noise, sigma_grid(steps), cond, truth, True, wanted).cpu().numpy().clip(-1, 1)
    past = batch.video.cumsum(1)[:, :-1] / np.arange(1, frames)[:, None, None, None]
    guesses = {"model": sampled[:, context:], "copy of the last frame": batch.video[:, context - 1 : -1]}
    guesses |= {"mean frame of the past": past[:, context - 1 :]}
    target = batch.video[:, context:]
    result = {f"PSNR of the {name} (dB)": _psnr(guess, target) for name, guess in guesses.items()}
    if "in_view_before" in batch.state:
        result |= _by_memory(sampled[:, context:], target, batch.state["in_view_before"][:, context:])
    return result


def _psnr(guess: np.ndarray, target: np.ndarray) -> float:
    error = ((guess - target) ** 2).mean(axis=(2, 3, 4))
    return round(float((10 * np.log10(4 / np.maximum(error, 4e-10))).mean()), 2)


def _by_memory(guess: np.ndarray, target: np.ndarray, seen: np.ndarray) -> dict[str, float]:
    error = ((guess - target) ** 2).mean(axis=2)
    rows = {f"squared error, pixels {age}": float(error[seen == code].mean()) for age, code in AGES.items()}
    return {name: round(value, 4) for name, value in rows.items()}


if __name__ == "__main__":
    sys.exit(main())
