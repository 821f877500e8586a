"""python -m training --model dense-tiles: trains a model from scratch, or goes on where it was stopped."""

import argparse
import sys
from pathlib import Path

from training.recipes import RECIPES, recipe


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument("--model", default="dense-tiles", help=f"a recipe: {', '.join(RECIPES)}")
    parser.add_argument("--out", type=Path, help="folder of the run (default: runs/train/<model>)")
    parser.add_argument("--steps", type=int, help="optimiser steps (default: the recipe's)")
    parser.add_argument("--batch", type=int, help="clips per step (default: the recipe's)")
    parser.add_argument("--seed", type=int, default=0, help="decides weights, clips and noise")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--threads", type=int, help="CPU threads (default: all cores)")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 when trained, 2 when the request cannot be met, 130 when stopped."""
    options = parser().parse_args(arguments)
    try:
        changes = {
            name: getattr(options, name) for name in ("steps", "batch") if getattr(options, name) is not None
        }
        for name, value in {**changes, "threads": options.threads}.items():
            if value is not None and value < 1:
                raise ValueError(f"--{name} must be at least 1, got {value}")
        chosen = recipe(options.model, seed=options.seed, **changes)
        out = options.out or Path("runs/train") / options.model
        print(_train(chosen, out, options.device, options.threads))
    except (ValueError, OSError) as error:
        print(f"training: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("training: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def _train(chosen, out: Path, device: str, threads: int | None) -> Path:
    import torch

    from models._checkpoint import check_device
    from training.trainer import train

    if threads is not None:
        torch.set_num_threads(threads)
    check_device(device, "float32")
    return train(chosen, out, device)


if __name__ == "__main__":
    sys.exit(main())
