"""Memory of the comparison: needed by arithmetic, free, what would fit, and the measured peak."""

from pathlib import Path

import torch

from framelens.benchmarks import measure
from framelens.benchmarks.scd.arms import Arm, network
from framelens.benchmarks.scd.presets import Preset
from framelens.models.cost.operations import VALUE_BYTES, cache_bytes, parameters


def needed_bytes(preset: Preset, arms: list[str], dtype: str, history: int, batch: int) -> int:
    """Bytes of all plain arms together: weights, contexts, a copy of the largest context; no activations."""
    shapes = [preset.shape(arm, batch=batch, value_bytes=VALUE_BYTES[dtype]) for arm in arms]
    caches = [cache_bytes(shape, history + 1) for shape in shapes]
    return sum(parameters(shape) * shape.value_bytes for shape in shapes) + sum(caches) + max(caches)


def free_bytes(device: str) -> int | None:
    """Free bytes of that device; None if this system does not report them."""
    if device.startswith("cuda"):
        return torch.cuda.mem_get_info(device)[0]
    table = Path("/proc/meminfo")
    lines = table.read_text().splitlines() if table.exists() else []
    kibibytes = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    return 1024 * kibibytes[0] if kibibytes else None


def check_memory(preset: Preset, arms: list[str], dtype: str, device: str) -> None:
    """Raises ValueError, with what would fit, if a point of a sweep needs more memory than is free."""
    free = free_bytes(device)
    points = [(preset.longest, preset.batch), (preset.history, preset.largest)]
    for history, batch in points:
        needed = needed_bytes(preset, arms, dtype, history, batch)
        if free is not None and needed > free:
            raise ValueError(
                f"{preset.name} with {history} frames of history at batch {batch} needs "
                f"{needed / 1e9:.1f} GB of memory and {free / 1e9:.1f} GB are free: "
                f"{what_fits(preset, arms, dtype, free, history, batch)}"
            )


def what_fits(preset: Preset, arms: list[str], dtype: str, free: int, history: int, batch: int) -> str:
    """The longest history at that batch, and the largest batch at that history, in `free` bytes."""

    def fits(history: int, batch: int) -> bool:
        return needed_bytes(preset, arms, dtype, history, batch) <= free

    frames = max((h for h in range(1, preset.frames) if fits(h, batch)), default=0)
    clips = max((b for b in range(1, batch + 1) if fits(history, b)), default=0)
    if frames:
        other = f", or a batch of {clips} at {history}" if clips else ""
        return f"a history of {frames} frames fits at batch {batch}{other}"
    alone = [arm for arm in arms if needed_bytes(preset, [arm], dtype, 1, 1) <= free]
    return f"arms that fit alone at batch 1: {', '.join(alone) or 'none'}"


def peak_bytes(preset: Preset, arm: str, mode: str, device: str, dtype: str, seed: int, threads: int) -> int:
    """Peak bytes while a frame is generated at the preset's history, network included; in a new process."""
    torch.set_num_threads(threads)

    @torch.inference_mode()
    def run() -> None:
        own = Arm(network(preset, arm, device, dtype, seed), preset, device, seed, mode)
        own.reach(preset.history, preset.batch)
        own.prepare_sample()
        own.sample(own.sigmas(2))
        own.model.encode(own.noise, own.context)

    return measure.peak_bytes(run, device)
