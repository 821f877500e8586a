"""framelens check --model dense-tiles: does a model keep the contract of every number?

The model gets random frames of its own size. The checks do not measure how good the model is. In Python:
`framelens.probes.check.examine.failures(model)` is a list that should be empty.
"""

import argparse
import sys

from framelens.records.assignments import parse_assignments
from framelens.records.checks import SEED, STEPS, Rule, between, check, spell_as_flag
from framelens.records.commands import exits_as, read_options

RULES: dict[str, Rule] = {"chunks": between(1, 1000), "steps": STEPS, "seed": SEED}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="framelens check",
        description="Checks a model against the contract that every number rests on. Each check prints one "
        "line: what was found and, if the check fails, what to do (models/README.md). The model gets random "
        "frames of its own size; how good the model is, is not measured. An adapter is code, and it is run.",
        epilog="Exit status: 0 if every check holds, 1 if one does not, 2 if the model cannot be loaded.",
    )
    parser.add_argument(
        "--model", required=True, help="a shipped model, a checkpoint, a hub id or adapter.py:function"
    )
    parser.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="options that the checkpoint does not store, for example height=60 width=104 window=6",
    )
    parser.add_argument("--chunks", type=int, default=3, help="chunks of the random clips (default: 3)")
    parser.add_argument(
        "--videos",
        help="clips like those that the model was trained on, which show whether its output is a velocity: a "
        "world, films or a file of latents (default: what the model says)",
    )
    parser.add_argument("--steps", type=int, default=2, help="denoising steps (default: 2)")
    parser.add_argument("--seed", type=int, default=0, help="decides the random clips")
    parser.add_argument(
        "--all-layers", action="store_true", help="edit the points of every layer of a deep network"
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--dtype", default="float32", help="float32, bfloat16 or float16")
    return parser


@exits_as("check")
def main(arguments: list[str]) -> int:
    """Exit status: 0 if every check holds, 1 if one does not, 2 if the request cannot be met."""
    options = read_options(parser(), arguments)
    check(options, RULES, spell_as_flag)
    answer = parse_assignments(options.set)
    from framelens import models

    models.find(options.model)  # before the heavy imports: a misspelt name answers at once

    import torch

    from framelens.models.loading.memory import require_room_for_clips
    from framelens.probes.check.examine import CLIPS, examine

    model = models.load(options.model, options.device, options.dtype, **answer)
    g = model.geometry
    frames = options.chunks * g.frames_per_chunk
    require_room_for_clips(CLIPS, frames, (g.channels, g.height, g.width), "--chunks")
    verdicts = []
    try:
        asked = options.chunks, options.steps, options.seed, options.all_layers, options.videos
        for found in examine(model, None, *asked):
            print(found.line, flush=True)
            verdicts.append(found.holds)
    except torch.OutOfMemoryError:  # pyright: ignore[reportPrivateImportUsage]
        raise OSError(
            f"{options.device} has not enough memory for 2 clips of {options.chunks} chunks; try --dtype "
            "bfloat16, or --set with a smaller height and width"
        ) from None
    examined = [verdict for verdict in verdicts if verdict is not None]
    print(f"{sum(examined)} of {len(examined)} checks hold for {options.model}")
    return 0 if all(examined) else 1


if __name__ == "__main__":
    sys.exit(main())
