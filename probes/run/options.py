"""The options of a probe run: the command line, and the settings that it gives.

settings, unasked = settings_of(vars(parser().parse_args(["--quick"])))
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from framelens.probes.run.settings import OF_THE_MODEL, QUICK, Settings
from framelens.records.assignments import parse_assignments

BESIDE = ("model", "run", "out", "workers", "fresh", "same_code")
"""Options that decide none of the settings."""
ABOUT = "Probes a model on held-out clips, or resumes a stopped run."


def parser(
    prog: str = "framelens probe",
    about: str | None = ABOUT,
    beside: Sequence[argparse.ArgumentParser] = (),
) -> argparse.ArgumentParser:
    """The command line of a run, or of another command that has these options beside its own."""
    default = Settings()
    parser = argparse.ArgumentParser(
        prog=prog,
        description=about,
        parents=beside,
        usage="%(prog)s [options]",
    )
    sampling = parser.add_argument_group("clips and sampling")
    measured = parser.add_argument_group("what is measured")
    machine = parser.add_argument_group("model and machine")
    parser.add_argument(
        "--model",
        default="dense-tiles",
        help="a shipped model, a checkpoint, a hub id or adapter.py:function; an adapter is code, and it is "
        "run (default: dense-tiles)",
    )
    machine.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="what the model's checkpoint does not store, for example height=60 width=104",
    )
    parser.add_argument(
        "--run", help="name of the run (default: from the settings that differ from the defaults)"
    )
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder of all runs")
    parser.add_argument(
        "--fresh",
        action="store_true",
        help="measure again where the run exists; the old one is kept under a name with its date",
    )
    machine.add_argument(
        "--same-code",
        action="store_true",
        help="resume a run although code or versions have changed, where the weights and inputs are the same",
    )
    for name, text in {
        "clips": "held-out clips",
        "queries": "queries per frame whose attention is read",
        "seed": "decides clips, noise and the random network",
    }.items():
        value = getattr(default, name)
        group = measured if name == "queries" else parser
        group.add_argument(f"--{name}", type=int, default=value, help=f"{text} (default: {value})")
    for name, text in {
        "context": "frames given before a free run, in whole chunks",
        "steps": "denoising steps per frame; interventions take at most 10, quick ones 5; another "
        "number than the model's own replaces its noise levels by an even grid under its shift",
        "probed": "frames at which features and attention are read, one of a chunk",
    }.items():
        value = str(getattr(default, name))
        value += f", with --quick {QUICK[name]}" if name in QUICK else ""
        value = f"the model's own, else {value}" if name in OF_THE_MODEL else value
        group = {"context": sampling, "probed": measured}.get(name, parser)
        group.add_argument(f"--{name}", type=int, help=f"{text} (default: {value})")
    for name, text in {
        "tokens": "tokens of a chunk that similarity, noise invariance and the readout are measured on; the "
        "error this makes is written beside them",
        "stats-steps": "denoising steps at which streaming statistics are taken, evenly spread",
    }.items():
        measured.add_argument(f"--{name}", type=int, metavar="N", help=f"{text} (default: all)")
    sampling.add_argument(
        "--frames", type=int, help="frames per clip (default: as in training, else of 8 chunks)"
    )
    sampling.add_argument(
        "--shift",
        type=float,
        help="shift of an even sigma grid, which replaces a model's own noise levels (default: the model's "
        "own, else 1)",
    )
    sampling.add_argument(
        "--renoise",
        action=argparse.BooleanOptionalAction,
        help="add new noise to the predicted frame between steps (default: the model's own, else not)",
    )
    sampling.add_argument(
        "--guidance",
        type=float,
        default=default.guidance,
        metavar="SCALE",
        help="classifier-free guidance of rollouts and own samples, away from the negative prompt in the "
        "file of --videos, or from the null action or label; Wan's pipeline has 5, SkyReels' 6. Statistics "
        "read the conditional branch; interventions are tried on it without guidance (default: 1, none)",
    )
    parser.add_argument(
        "--videos",
        help="a world, a data set, a video file, a folder of films (clips are drawn over all of them), a "
        "file of latents, `own` for samples of the model itself or own:FILE for those that follow a file's "
        "prompts "
        "(default: what the model was trained on, else own)",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="about a third of the work: fewer noise levels and steps, reuse at some 6 layers (every second "
        "of 12), no single heads; cuts and left-out layers still at every layer",
    )
    measured.add_argument(
        "--experiments", nargs="+", default=[], metavar="NAME", help="only these (default: all)"
    )
    measured.add_argument(
        "--layers",
        nargs=2,
        type=int,
        metavar=("FIRST", "LAST"),
        help="layers that interventions reach for, from 0 (default: all that denoise)",
    )
    measured.add_argument(
        "--starts",
        nargs="+",
        type=int,
        default=[],
        metavar="STEP",
        help="steps whose features are reused (default: the first and every quarter of the way)",
    )
    measured.add_argument(
        "--statistics", nargs="+", default=[], metavar="NAME", help="only these (default: all)"
    )
    machine.add_argument("--device", default="cpu", help="cpu, cuda, cuda:N, or auto for all GPUs")
    machine.add_argument("--workers", type=int, help="processes on a CPU (default: one per core)")
    machine.add_argument("--dtype", default="float32", help="float32, bfloat16 or float16")
    return parser


def settings_of(options: dict[str, Any]) -> tuple[Settings, list[str]]:
    """The settings in a parsed command line, and the names of those that it leaves open."""
    options = {name: value for name, value in options.items() if name not in BESIDE}
    options |= {name: tuple(options[name]) for name in ("experiments", "starts", "statistics")}
    options["layers"] = options["layers"] and tuple(options["layers"])
    default = {name: getattr(Settings, name) for name in ("context", *QUICK, *OF_THE_MODEL)}
    unasked = [name for name in default if options[name] is None]
    default |= QUICK if options["quick"] else {}
    options |= {name: default[name] for name in unasked}
    options["set"] = tuple(parse_assignments(options["set"]).items())
    return Settings(**options), unasked
