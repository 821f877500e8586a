"""python -m probes --model dense-tiles: probes a model on held-out clips, or goes on where it was stopped."""

import argparse
import shlex
import sys
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from probes.settings import OF_THE_MODEL, QUICK, Settings, told


def parser() -> argparse.ArgumentParser:
    """The command line."""
    default = Settings()
    parser = argparse.ArgumentParser(prog="python -m probes", description=__doc__)
    parser.add_argument("--model", default="dense-tiles", help="a shipped model, a checkpoint or a hub id")
    parser.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="what the model's checkpoint does not say, for example height=60 width=104",
    )
    parser.add_argument(
        "--run", help="name of the run (default: from the settings that differ from the defaults)"
    )
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder of all runs")
    for name, text in {
        "clips": "held-out clips",
        "context": "frames given before a free run",
        "queries": "queries per frame whose attention is read",
        "seed": "decides clips, noise and the random network",
    }.items():
        value = getattr(default, name)
        parser.add_argument(f"--{name}", type=int, default=value, help=f"{text} (default: {value})")
    for name, text in {
        "steps": "denoising steps per frame; interventions take at most 10, quick ones 5",
        "probed": "frames at which features and attention are read",
    }.items():
        value = f"{getattr(default, name)}, with --quick {QUICK[name]}"
        value = f"the model's own, else {value}" if name in OF_THE_MODEL else value
        parser.add_argument(f"--{name}", type=int, help=f"{text} (default: {value})")
    for name, text in {
        "tokens": "tokens of a chunk that similarity, noise invariance and the readout are measured on; the "
        "error this makes is written beside them",
        "stats-steps": "denoising steps at which streaming statistics are taken, evenly spread",
    }.items():
        parser.add_argument(f"--{name}", type=int, metavar="N", help=f"{text} (default: all)")
    parser.add_argument(
        "--frames", type=int, help="frames per clip (default: as in training, else of 8 chunks)"
    )
    parser.add_argument(
        "--shift", type=float, help="shift of the sigma grid (default: the model's own, else 1)"
    )
    parser.add_argument(
        "--renoise",
        action=argparse.BooleanOptionalAction,
        help="noise the predicted frame anew between steps (default: the model's own, else not)",
    )
    parser.add_argument(
        "--videos",
        help="a world, a video file or folder, a file of latents, `own` for samples of the model itself or "
        "own:FILE for those that follow a file's prompts (default: what the model was trained on, else own)",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="a look in two minutes: fewer steps, frames and layers, no single heads",
    )
    parser.add_argument(
        "--experiments", nargs="+", default=[], metavar="NAME", help="only these (default: all)"
    )
    parser.add_argument(
        "--layers",
        nargs=2,
        type=int,
        metavar=("FIRST", "LAST"),
        help="layers that interventions reach for, from 0 (default: all that denoise)",
    )
    parser.add_argument(
        "--starts",
        nargs="+",
        type=int,
        default=[],
        metavar="STEP",
        help="steps whose features are reused (default: the first and every quarter of the way)",
    )
    parser.add_argument(
        "--statistics", nargs="+", default=[], metavar="NAME", help="only these (default: all)"
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:N, or auto for all GPUs")
    parser.add_argument("--workers", type=int, help="processes on a CPU (default: one per core)")
    parser.add_argument("--dtype", default="float32", help="float32, bfloat16 or float16")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 when the run is complete, 2 when the request cannot be met, 130 when stopped."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["plan"]:
        from probes import plan

        return plan.main(arguments[1:])
    if arguments[:1] == ["estimate"]:
        from probes import estimate

        return estimate.main(arguments[1:])
    options = vars(parser().parse_args(arguments))
    model, run, out, workers = (options.pop(name) for name in ("model", "run", "out", "workers"))
    try:
        settings, unasked = settings_of(options)
        if workers is not None and workers < 1:
            raise ValueError(f"--workers must be at least 1, got {workers}")
        command = shlex.join(["python", "-m", "probes", *arguments])
        folder = probe(model, settings, out, run, workers, command, unasked)
        if folder is not None:
            print(folder)
    except (ValueError, OSError) as error:
        print(f"probes: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("probes: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def settings_of(options: dict[str, Any]) -> tuple[Settings, list[str]]:
    """The settings in a parsed command line, and the names of those that it leaves to the model."""
    options = options | {name: tuple(options[name]) for name in ("experiments", "starts", "statistics")}
    options["layers"] = options["layers"] and tuple(options["layers"])
    unasked = [name for name in OF_THE_MODEL if options[name] is None]
    default = {name: getattr(Settings, name) for name in (*QUICK, *OF_THE_MODEL)}
    default |= QUICK if options["quick"] else {}
    options |= {name: value for name, value in default.items() if options[name] is None}
    options["set"] = told(options["set"])
    return Settings(**options), unasked


def probe(
    name: str,
    settings: Settings,
    out: Path,
    run: str | None,
    workers: int | None,
    command: str,
    unasked: Collection[str] = (),
) -> Path | None:
    """The folder of the finished run, for the first of the processes that a launcher started; what was not
    asked for is as the model is meant to be sampled."""
    import models

    models.find(name)  # before the heavy imports: a misspelt name answers at once

    import torch
    from tqdm import tqdm

    from hooks.attention import self_test
    from models._device import device_name
    from probes._plan import write_plan
    from probes._ranks import joined
    from probes.run_folder import RunFolder, manifest
    from probes.work import default_workers, measured, open_laboratory

    ranks = joined(settings.device)
    workers = default_workers(settings.device, ranks.size) if workers is None else workers
    if max(workers, ranks.size) > 1:
        torch.set_num_threads(1)  # as in the workers: a clip's numbers do not depend on who measured it
    laboratory = open_laboratory(name, settings, unasked)
    _say_what_was_rounded(settings, laboratory)
    settings, model = laboratory.settings, laboratory.networks["trained"]
    self_test(settings.device, getattr(torch, settings.dtype))
    label = models.label(name)
    described = manifest(command, model, label, settings, laboratory.frames)
    folder = RunFolder(out / label / (run or settings.slug(model)), described, ranks.is_first)
    missing = folder.missing(settings.clips)
    if missing and ranks.is_first:  # the others read what it draws
        laboratory = laboratory.with_own_clips(folder.path)
    missing = ranks.told(missing)
    laboratory = laboratory.with_own_clips(folder.path) if missing else laboratory
    began, shown = time.perf_counter(), None if ranks.is_first else True
    done = settings.clips - len(missing)
    with tqdm(total=settings.clips, initial=done, desc=label, unit="clip", disable=shown) as progress:

        def look() -> None:
            progress.update(settings.clips - len(folder.missing(settings.clips)) - progress.n)

        for _ in measured(laboratory, name, missing[ranks.rank :: ranks.size], folder, workers):
            look()
        ranks.wait(look)
    if ranks.is_first:
        seconds = time.perf_counter() - began
        folder.complete(settings.clips, device_name(settings.device), len(missing), seconds)
        write_plan(folder.path, model)
    return folder.path if ranks.is_first else None


def _say_what_was_rounded(asked: Settings, laboratory: Any) -> None:
    """One line on stderr where counts of frames were no whole chunks."""
    chunk = laboratory.networks["trained"].geometry.frames_per_chunk
    pairs = {
        "context": (asked.context, laboratory.settings.context),
        "frames": (asked.frames, laboratory.frames),
    }
    changed = [
        f"--{name} {was} becomes {now}" for name, (was, now) in pairs.items() if was not in (None, now)
    ]
    if changed:
        print(f"probes: the model makes {chunk} frames at a time: {', '.join(changed)}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
