"""python -m framelens.probes estimate --preset wan-1.3b --dtype bfloat16: what a probe run will take.

Memory by what holds it, and block evaluations by experiment with their operations and time at a given speed:
arithmetic on shapes. Flags of a run (--steps, --frames, --quick, --tokens, ...) mean what they mean there.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from framelens.probes.run.options import parser as run_parser
from framelens.probes.run.options import settings_of
from framelens.probes.run.settings import Settings
from framelens.records.commands import exits_as

PRESETS: dict[str, dict[str, int]] = {
    "wan-1.3b": {"layers": 30, "heads": 12, "d_model": 1536, "mlp_width": 8960},
    "wan-14b": {"layers": 40, "heads": 40, "d_model": 5120, "mlp_width": 13824},
}
"""Wan 2.1 at 832 x 480 pixels: frames of 60 x 104 latents with 16 channels in patches of 2 x 2."""
ROWS, COLS, VALUES, TEXT_TOKENS, TEXT_WIDTH, SINUSOID = 30, 52, 64, 512, 4096, 256
FRAMES, STEPS = 21, 50
"""Of those presets, unless they are asked for: 81 frames of video, and the sampler's own steps."""


@dataclass(frozen=True)
class Network:
    """What the arithmetic asks of a network."""

    name: str
    layers: int
    encoding_layers: int
    heads: int
    d_model: int
    mlp_width: int
    tokens: int
    """Of a chunk."""
    chunk: int
    parameters: int
    text_tokens: int = 0
    seen: int | None = None
    is_bidirectional: bool = False


def parser() -> argparse.ArgumentParser:
    """The options beside those of a run."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--preset", choices=PRESETS, help="instead of --model: its sizes, without weights")
    parser.add_argument("--chunk", type=int, default=1, help="frames that a preset makes together")
    parser.add_argument(
        "--teraflops", type=float, default=300, help="operations a second to count with, 1e12"
    )
    return parser


@exits_as("estimate")
def main(arguments: Sequence[str]) -> int:
    """Exit status: 0, or 2 when the request cannot be met."""
    whole = run_parser("python -m framelens.probes estimate", __doc__, [parser()])
    options = vars(whole.parse_args(arguments))
    model, preset, chunk, teraflops, *_ = (
        options.pop(name) for name in ("model", "preset", "chunk", "teraflops", "run", "out", "workers")
    )
    if chunk < 1 or not teraflops > 0:
        raise ValueError(f"--chunk and --teraflops must be positive, got {chunk} and {teraflops:g}")
    settings, unasked = settings_of(options)
    if preset is None:
        network, settings = _of_model(model, settings, unasked)
    else:
        steps = STEPS if "steps" in unasked and not settings.quick else settings.steps
        settings = replace(settings, steps=steps, frames=settings.frames or FRAMES)
        network = _of_preset(preset, chunk)
    print("\n".join(text(network, settings, teraflops)))
    return 0


def text(network: Network, settings: Settings, teraflops: float) -> list[str]:
    """The lines of the estimate."""
    from framelens.models.cost.operations import VALUE_BYTES
    from framelens.probes.estimate.memory import Sizes, room
    from framelens.probes.estimate.passes import evaluations, uncounted

    run = _run(network, settings)
    sizes = Sizes(
        network.parameters, network.d_model, network.mlp_width, VALUE_BYTES[settings.dtype],
        network.text_tokens, network.seen,
    )  # fmt: skip
    parts, blocks = room(run, sizes), evaluations(run)
    lines = [
        f"{network.name}: {network.parameters / 1e9:.2f} billion weights, {network.layers} layers of width "
        f"{network.d_model}, {network.tokens} tokens a chunk; clips of {run.chunks} chunks, "
        f"{settings.steps} steps, {settings.dtype}",
        "",
        "memory, one clip at a time",
    ]
    lines += [f"{size / 1e9:8.2f} GB  {name}" for name, size in parts.items()]
    lines += [f"{sum(parts.values()) / 1e9:8.2f} GB  together", ""]
    passes = {name: count / run.layers for name, count in blocks.items() if name != "memory"}
    passes["memory"] = blocks["memory"] / run.encoding_layers
    each = {name: count * _flops(run, network, name == "rollouts") for name, count in passes.items()}
    lines += ["work per clip, in passes through all layers of one chunk"]
    for name in sorted(passes, key=lambda name: -each[name]):
        hours = each[name] / teraflops / 1e12 / 3600
        lines.append(f"{passes[name]:10.0f}  {each[name] / 1e15:9.2f} PFLOP  {hours:7.2f} h  {name}")
    total = sum(each.values())
    hours = total / teraflops / 1e12 / 3600
    lines.append(f"{sum(passes.values()):10.0f}  {total / 1e15:9.2f} PFLOP  {hours:7.2f} h  together")
    lines.append(f"at {teraflops:g} TFLOP/s; {settings.clips} clips take {settings.clips * hours:.1f} h")
    left_out = uncounted(run)
    if left_out:
        lines.append(f"not counted: {', '.join(left_out)}")
    return lines


def _flops(run: Any, network: Network, is_rollout: bool) -> float:
    """Operations of one pass of a chunk: matrix products, and attention to the past of the last chunk, or of
    an average one in rollouts."""
    d, n = network.d_model, network.tokens
    chunks = (run.chunks + 1 + run.settings.context // run.chunk) / 2 if is_rollout else run.chunks
    keys = min(chunks, network.seen or chunks) * n + network.text_tokens
    weights = 6 * d * d if network.text_tokens else 4 * d * d
    return run.layers * n * (2 * (weights + 2 * d * network.mlp_width) + 4 * keys * d)


def _run(network: Network, settings: Settings) -> Any:
    from framelens.probes.estimate.passes import Run

    frames = settings.frames
    if frames is None:
        raise ValueError("say how long clips are: --frames")
    chunks = frames // network.chunk
    return Run(
        network.layers, network.encoding_layers, network.heads, chunks, network.chunk, network.tokens,
        settings, network.is_bidirectional,
    )  # fmt: skip


def _of_preset(name: str, chunk: int) -> Network:
    """A Wan network of that size, its weights counted."""
    sizes = PRESETS[name]
    d, m = sizes["d_model"], sizes["mlp_width"]
    block = 8 * (d * d + d) + 4 * d + 2 * d + (2 * d * m + m + d) + 6 * d
    around = (VALUES * d + d) + (TEXT_WIDTH * d + d) + (SINUSOID * d + d) + 2 * (d * d + d)
    around += 6 * (d * d + d) + (d * VALUES + VALUES) + 2 * d
    return Network(
        name, sizes["layers"], sizes["layers"], sizes["heads"], d, m, chunk * ROWS * COLS, chunk,
        sizes["layers"] * block + around, TEXT_TOKENS, None, True,
    )  # fmt: skip


def _of_model(name: str, settings: Settings, unasked: Sequence[str]) -> tuple[Network, Settings]:
    """A loaded model, and the settings that it is probed with."""
    from framelens import models
    from framelens.probes.chunk.layers import Layers
    from framelens.probes.run.clips import frames_of

    model = models.load(name, "cpu", settings.dtype, **dict(settings.set))
    settings = settings.of_model(model, unasked)
    settings = replace(settings, frames=frames_of(settings, model))
    geometry, layers = model.geometry, len(Layers(model))
    said = model.describe() if hasattr(model, "describe") else {}
    stack = getattr(model, "denoising_stack", "")
    encoding = [point for point in model.attn_dict if not stack or not point.startswith(stack)]
    window, chunk = said.get("window"), geometry.frames_per_chunk
    seen = None if window is None else -(-(window + (said.get("sink") or 0)) // chunk) + 1
    network = Network(
        models.label(name), layers, len(encoding) or layers, geometry.heads, geometry.d_model,
        said.get("mlp_width") or 4 * geometry.d_model, geometry.tokens_per_chunk, chunk,
        sum(weight.numel() for weight in model.parameters()), said.get("text_tokens") or 0, seen,
        hasattr(model, "bidirectional"),
    )  # fmt: skip
    return network, settings
