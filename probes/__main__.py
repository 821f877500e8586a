"""python -m probes --model dense-tiles: probes a model on held-out clips, or goes on where it was stopped."""

import argparse
import sys
import time
from pathlib import Path

from probes import load, names
from probes.settings import Settings


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
        "steps": "denoising steps per frame",
        "context": "frames given before a free run",
        "probed": "frames at which features and attention are read",
        "queries": "queries per frame whose attention is read",
        "seed": "decides clips, noise and the random network",
    }.items():
        value = getattr(default, name)
        parser.add_argument(f"--{name}", type=int, default=value, help=f"{text} (default: {value})")
    parser.add_argument("--frames", type=int, help="frames per clip (default: as in training)")
    parser.add_argument(
        "--shift", type=float, default=default.shift, help="shift of the sigma grid (default: 1)"
    )
    parser.add_argument(
        "--videos", help="a video source, file or folder (default: what the model was trained on)"
    )
    parser.add_argument(
        "--statistics", nargs="+", default=[], metavar="NAME", help="only these (default: all)"
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--dtype", default="float32", help="float32, bfloat16 or float16")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 when the run is complete, 2 when the request cannot be met, 130 when stopped."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = vars(parser().parse_args(arguments))
    model, run, out = (options.pop(name) for name in ("model", "run", "out"))
    options["statistics"] = tuple(options["statistics"])
    try:
        print(probe(model, Settings(**options), out, run, ["python -m probes", *arguments]))
    except (ValueError, OSError) as error:
        print(f"probes: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("probes: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def probe(name: str, settings: Settings, out: Path, run: str | None, command: list[str]) -> Path:
    """The folder of the finished run."""
    import models

    models.find(name)
    model = models.load(name, settings.device, settings.dtype)

    from tqdm import tqdm

    from hooks.attention import self_test
    from models._null import shuffled
    from probes import run_folder
    from probes.subject import Subject, probed_frames, read_clips

    self_test(settings.device, model.dtype)
    frames = settings.frames or model.source.metadata["training"]["recipe"]["frames"]
    clips = read_clips(settings, model, frames)
    networks = {"trained": model, "random": shuffled(model, settings.seed)}
    label = models.label(name)
    manifest = run_folder.manifest(command, model, label, settings, frames, probed_frames(settings, frames))
    folder = run_folder.RunFolder(out / label / (run or settings.slug()), manifest)
    folder.start_session(device_name(settings.device))
    experiments = [load(experiment) for experiment in names()]
    for index in tqdm(folder.missing(settings.clips), desc=f"probing {label}", unit="clip"):
        began = time.perf_counter()
        subject = Subject(index, networks, clips[index], clips[index + 1], settings, frames)
        datasets = {}
        for experiment in experiments:
            datasets |= experiment.measure(subject)
        folder.write_clip(index, datasets, time.perf_counter() - began)
    folder.merge(settings.clips, [module.conclude for module in experiments if hasattr(module, "conclude")])
    return folder.path


def device_name(device: str) -> str:
    """The GPU's name, or the kind of processor."""
    import platform

    import torch

    return torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.machine()


if __name__ == "__main__":
    sys.exit(main())
