"""python -m probes --model dense-tiles: probes a model on held-out clips, or goes on where it was stopped."""

import argparse
import shlex
import sys
import time
from pathlib import Path

from probes.settings import QUICK, Settings


def parser() -> argparse.ArgumentParser:
    """The command line."""
    default = Settings()
    parser = argparse.ArgumentParser(prog="python -m probes", description=__doc__)
    parser.add_argument("--model", default="dense-tiles", help="a shipped model or the path of a checkpoint")
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
        parser.add_argument(f"--{name}", type=int, help=f"{text} (default: {value})")
    parser.add_argument("--frames", type=int, help="frames per clip (default: as in training)")
    parser.add_argument(
        "--shift", type=float, default=default.shift, help="shift of the sigma grid (default: 1)"
    )
    parser.add_argument(
        "--videos", help="a video source, file or folder (default: what the model was trained on)"
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
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--workers", type=int, help="processes on a CPU (default: one per core)")
    parser.add_argument("--dtype", default="float32", help="float32, bfloat16 or float16")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 when the run is complete, 2 when the request cannot be met, 130 when stopped."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["plan"]:
        from probes import plan

        return plan.main(arguments[1:])
    options = vars(parser().parse_args(arguments))
    model, run, out, workers = (options.pop(name) for name in ("model", "run", "out", "workers"))
    options |= {name: tuple(options[name]) for name in ("experiments", "starts", "statistics")}
    options["layers"] = options["layers"] and tuple(options["layers"])
    default = QUICK if options["quick"] else {name: getattr(Settings, name) for name in QUICK}
    options |= {name: value for name, value in default.items() if options[name] is None}
    try:
        if workers is not None and workers < 1:
            raise ValueError(f"--workers must be at least 1, got {workers}")
        print(
            probe(
                model,
                Settings(**options),
                out,
                run,
                workers,
                shlex.join(["python", "-m", "probes", *arguments]),
            )
        )
    except (ValueError, OSError) as error:
        print(f"probes: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("probes: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def probe(
    name: str, settings: Settings, out: Path, run: str | None, workers: int | None, command: str
) -> Path:
    """The folder of the finished run."""
    import models

    models.find(name)  # before the heavy imports: a misspelt name answers at once

    import torch
    from tqdm import tqdm

    from hooks.attention import self_test
    from models._device import device_name
    from probes._plan import write_plan
    from probes.run_folder import RunFolder, manifest
    from probes.work import default_workers, measured, open_laboratory

    workers = default_workers(settings.device) if workers is None else workers
    if workers > 1:
        torch.set_num_threads(1)  # as in the workers: a clip's numbers do not depend on who measured it
    laboratory = open_laboratory(name, settings)
    self_test(settings.device, getattr(torch, settings.dtype))
    label = models.label(name)
    described = manifest(command, laboratory.networks["trained"], label, settings, laboratory.frames)
    folder = RunFolder(out / label / (run or settings.slug()), described)
    missing = folder.missing(settings.clips)
    began = time.perf_counter()
    done = settings.clips - len(missing)
    with tqdm(total=settings.clips, initial=done, desc=label, unit="clip", disable=None) as progress:
        for _ in measured(laboratory, name, missing, folder, workers):
            progress.update()
    folder.complete(settings.clips, device_name(settings.device), len(missing), time.perf_counter() - began)
    write_plan(folder.path, laboratory.networks["trained"])
    return folder.path


if __name__ == "__main__":
    sys.exit(main())
