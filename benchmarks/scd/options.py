"""The command line of `scd_bench`, and the settings that it requests.

full, settings = read_request(parser().parse_args(["--preset", "minecraft"]))
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from framelens.benchmarks.scd.arms import PLAIN
from framelens.benchmarks.scd.plan import PlannerPrediction, read_plan
from framelens.benchmarks.scd.presets import ASKS, FETCH_ONCE, PRESETS, Preset, choose_preset
from framelens.benchmarks.scd.sweeps import VARIED, BenchSettings
from framelens.models.cost.operations import VALUE_BYTES
from framelens.models.loading.devices import check_device
from framelens.models.parts.fusion import FUSIONS
from framelens.models.variants.captured import MODES
from framelens.records.checks import Rule, between, check, optional, spell_as_flag

FIELDS = {
    "history": "histories",
    "steps": "all_steps",
    "decoder_layers": "decoder_layers",
    "batch": "batches",
}
"""The field of a preset that holds the values of each sweep."""
WAYS = (*FUSIONS, ASKS, FETCH_ONCE)
"""What is compared with dense: separated networks by their fusion, one that asks, the past fetched once."""
RULES: dict[str, Rule] = {
    "repeats": between(1, 1000),
    "threads": optional(between(1, 1024)),
}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="framelens bench scd",
        description="compares dense and separated networks, by arithmetic and by measured time",
        usage="%(prog)s [options]",
    )
    machine = parser.add_argument_group("machine")
    parser.add_argument(
        "--preset",
        help=f"{', '.join(PRESETS)}, or a framelens model with its shapes (default: the plan's, or tiny)",
    )
    parser.add_argument(
        "--plan",
        type=Path,
        help="plan.json of a probe's run: times its split with the plan's steps, history and batch",
    )
    parser.add_argument(
        "--split", type=int, nargs=2, metavar=("E", "D"),
        help="layers of encoder and decoder; the sum may exceed the dense model's (default: the preset's)",
    )  # fmt: skip
    parser.add_argument(
        "--fusion", nargs="+", metavar="NAME",
        help=f"what to time beside dense, of {', '.join(WAYS)} (default: the plan's, or token_concat prefix; "
        f"and {FETCH_ONCE})",
    )  # fmt: skip
    parser.add_argument(
        "--mode", nargs="+", metavar="MODE",
        help=f"how denoising steps run: {PLAIN}, {', '.join(MODES)} (default: plain; on a GPU also graph)",
    )  # fmt: skip
    parser.add_argument(
        "--vary", nargs="+", metavar="NAME=N,N",
        help=f"values to sweep, of {', '.join(VARIED)} (default: the preset's sweeps; none with --plan)",
    )  # fmt: skip
    parser.add_argument("--repeats", type=int, default=5, help="timed rounds of all arms (default: 5)")
    machine.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: cpu)")
    machine.add_argument(
        "--dtype", help=f"{', '.join(VALUE_BYTES)} (default: the plan's; bfloat16 on a GPU, else float32)"
    )
    machine.add_argument(
        "--threads", type=int, help="threads of a CPU (default: the plan's; 1 for small networks, else all)"
    )
    machine.add_argument(
        "--memory",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="measure peak memory; on a CPU each arm runs in a separate process",
    )
    parser.add_argument("--out", type=Path, help="folder for the results (default: in runs/bench)")
    return parser


def read_request(options: argparse.Namespace) -> tuple[Preset, BenchSettings]:
    """The whole preset, and the settings of what is timed; ValueError if the request does not fit."""
    on_gpu = options.device.startswith("cuda")
    prediction = None if options.plan is None else read_plan(options.plan)
    dtype = options.dtype or (prediction.dtype if prediction else "bfloat16" if on_gpu else "float32")
    check_device(options.device, dtype)
    check(options, RULES, spell_as_flag)
    full, timed = _presets(options, prediction, on_gpu)
    modes = options.mode or ([PLAIN, "graph"] if on_gpu else [PLAIN])
    fusions = options.fusion or [
        *([prediction.fusion] if prediction else ["token_concat", "prefix"]),
        FETCH_ONCE,
    ]
    for what, wanted, there_are in (("fusion", fusions, WAYS), ("mode", modes, (PLAIN, *MODES))):
        unknown = [name for name in wanted if name not in there_are]
        if unknown:
            raise ValueError(f"no {what} is called {unknown[0]!r}; there are {', '.join(there_are)}")
    if "graph" in modes and not on_gpu:
        raise ValueError("mode 'graph' replays CUDA graphs: it needs --device cuda")
    if PLAIN not in modes:
        modes = [PLAIN, *modes]  # the other modes are compared with it
    fusions = list(dict.fromkeys(fusions))
    return full, BenchSettings(
        timed, fusions, modes, options.device, dtype, options.repeats, prediction=prediction
    )


def _presets(
    options: argparse.Namespace, prediction: PlannerPrediction | None, on_gpu: bool
) -> tuple[Preset, Preset]:
    """The whole preset and the timed one, with the requested split, use and sweeps."""
    if prediction is None:
        split = None if options.split is None else tuple(options.split)
        full, timed = choose_preset(options.preset or "tiny", on_gpu, split)
        return full, replace(timed, **read_sweeps(options.vary))
    if options.split is not None:
        raise ValueError(
            f"--plan times the plan's split, {prediction.split[0]} + {prediction.split[1]}: leave out --split"
        )
    full, _ = choose_preset(options.preset or prediction.model, on_gpu, prediction.split)
    tokens = full.shape("dense").tokens
    if tokens != prediction.tokens:
        raise ValueError(
            f"{prediction.file} is for {prediction.tokens} tokens a frame, {full.name} has {tokens}: plan "
            "without --tokens"
        )
    use = {"steps": prediction.steps, "history": prediction.history, "batch": prediction.batch}
    use |= {"past_layers": min(prediction.encoder_layers, full.dense.layers)}
    use |= {"guidance": 1.0, "frames": max(full.frames, prediction.history + 1)}
    full = replace(full, **use, **read_sweeps(options.vary or []))
    return full, full


def read_sweeps(given: Sequence[str] | None) -> dict[str, tuple[int, ...]]:
    """The values of each sweep, () for sweeps that are not named; {} if `given` is None."""
    if given is None:
        return {}
    sweeps: dict[str, tuple[int, ...]] = dict.fromkeys(FIELDS.values(), ())
    for text in given:
        name, _, values = text.partition("=")
        if name not in FIELDS:
            raise ValueError(f"--vary {text!r}: nothing is called {name!r}; there are {', '.join(FIELDS)}")
        try:
            sweeps[FIELDS[name]] = tuple(int(value) for value in values.split(","))
        except ValueError:
            raise ValueError(f"--vary {text!r} does not list whole numbers, as {name}=1,4 does") from None
    return sweeps
