"""The command line of `scd_bench`, and the plan that it asks for.

full, plan = planned(parser().parse_args(["--preset", "minecraft"]))
"""

import argparse
from pathlib import Path

from benchmarks._scd_arms import PLAIN
from benchmarks._scd_presets import PRESETS, Preset, chosen
from benchmarks._scd_sweeps import Plan
from models._captured import MODES
from models._device import check_device
from models._cost import VALUE_BYTES
from models._fusion import FUSIONS


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scd_bench",
        description="dense against separated, by arithmetic and on the clock",
    )
    parser.add_argument("--preset", default="tiny", help=f"{', '.join(PRESETS)} (default: tiny)")
    parser.add_argument(
        "--fusion", nargs="+", default=["token_concat", "prefix"], metavar="NAME",
        help=f"fusions to time, of {', '.join(FUSIONS)} (default: token_concat prefix)",
    )  # fmt: skip
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: cpu)")
    parser.add_argument(
        "--dtype", help=f"{', '.join(VALUE_BYTES)} (default: bfloat16 on a GPU, else float32)"
    )
    parser.add_argument("--threads", type=int, help="threads of a CPU (default: 1 for tiny, else all)")
    parser.add_argument("--repeats", type=int, default=5, help="timed rounds of all arms (default: 5)")
    parser.add_argument(
        "--mode", nargs="+", metavar="MODE",
        help=f"how denoising steps run: {PLAIN}, {', '.join(MODES)} (default: plain; on a GPU also graph)",
    )  # fmt: skip
    for name, words in (
        ("histories", "frames of history"), ("all-steps", "denoising steps"),
        ("decoder-layers", "decoder depths"), ("batches", "batch sizes"),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, nargs="+", metavar="N", help=f"{words} to time")
    parser.add_argument(
        "--memory",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="measure peak memory, each arm in a process of its own on a CPU",
    )
    parser.add_argument("--out", type=Path, help="folder of the results (default: in runs/bench)")
    parser.add_argument("--seed", type=int, default=0, help="decides weights, frames and the order of arms")
    return parser


def planned(options: argparse.Namespace) -> tuple[Preset, Plan]:
    """The preset and what of it is timed how; ValueError where the request does not fit."""
    on_gpu = options.device.startswith("cuda")
    dtype = options.dtype or ("bfloat16" if on_gpu else "float32")
    check_device(options.device, dtype)
    changes = {
        name: getattr(options, name) for name in ("histories", "all_steps", "decoder_layers", "batches")
    }
    full, timed = chosen(options.preset, on_gpu, **{k: v and tuple(v) for k, v in changes.items()})
    for name in ("repeats", "threads"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name} must be at least 1, got {value}")
    modes = options.mode or ([PLAIN, "graph"] if on_gpu else [PLAIN])
    for what, wanted, there_are in (("fusion", options.fusion, FUSIONS), ("mode", modes, (PLAIN, *MODES))):
        unknown = [name for name in wanted if name not in there_are]
        if unknown:
            raise ValueError(f"no {what} is called {unknown[0]!r}; there are {', '.join(there_are)}")
    if "graph" in modes and not on_gpu:
        raise ValueError("mode 'graph' replays CUDA graphs: it needs --device cuda")
    if PLAIN not in modes:
        modes = [PLAIN, *modes]  # what the others are compared with
    fusions = list(dict.fromkeys(options.fusion))
    return full, Plan(timed, fusions, modes, options.device, dtype, options.repeats, options.seed)
