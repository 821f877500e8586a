"""What probing costs at the size of Wan 1.3B: the time of all statistics, and peak memory by the estimate."""

from dataclasses import dataclass

from framelens.benchmarks import measure
from framelens.benchmarks.gpu.readings import CannotMeasure, Reading
from framelens.benchmarks.gpu.sizes import DaySizes
from framelens.benchmarks.overhead.__main__ import AGAIN, ALL, PLAIN, measure_arms
from framelens.benchmarks.overhead.clip import random_clip
from framelens.models import dense
from framelens.probes import experiments
from framelens.probes.estimate.memory import room
from framelens.probes.run.settings import Settings
from framelens.probes.run.shape import shape_of_run


def measure_overhead(sizes: DaySizes) -> list[Reading]:
    """Time and memory of a rollout under all statistics over those of the plain one."""
    setting = sizes.overhead
    rows = measure_arms(setting, sizes.repeats, not sizes.is_rehearsal, [PLAIN, AGAIN, ALL])
    about = f"{setting.tokens} tokens, {setting.layers} layers, width {setting.config.d_model}"
    readings = [Reading("plain rollout", rows[PLAIN]["wall_seconds"]["median"], "s", beside=about)]
    for name in (AGAIN, ALL):
        ratio = rows[name]["wall_ratio"]
        readings.append(
            Reading(
                f"{name}: time over plain", ratio["median"], "x", ratio["min"], ratio["max"],
                "the noise of the clock" if name == AGAIN else "each step of a frame is probed; wanted: 1.05",
            )
        )  # fmt: skip
    if rows[ALL]["peak_bytes_ratio"] is not None:
        readings.append(
            Reading(
                f"{ALL}: peak memory over plain", rows[ALL]["peak_bytes_ratio"], "x", beside="wanted: 1.1"
            )
        )
    return readings


@dataclass(frozen=True)
class ProbeMemory:
    """Bytes of one probed clip: the measured peak, and what was estimated beforehand."""

    peak: int
    estimate: int


def compare_memory(sizes: DaySizes) -> list[Reading]:
    """Peak memory of one probed clip of a random network, beside `framelens estimate`."""
    if not measure.can_measure_memory(sizes.device):
        raise CannotMeasure("this system does not tell peak memory")
    arguments = sizes.probed, sizes.probing
    on_gpu = sizes.device.startswith("cuda")
    found = probe_memory(*arguments) if on_gpu else measure.alone(probe_memory, *arguments)
    which = f"{' and '.join(sizes.probing.experiments)}, {sizes.probing.frames} frames"
    return [
        Reading("a probed clip: peak memory", found.peak / 1e9, "GB", beside=which),
        Reading("a probed clip: estimate", found.estimate / 1e9, "GB", beside="framelens estimate"),
        Reading("peak over estimate", found.peak / found.estimate, "x"),
    ]


def probe_memory(config: dense.Config, settings: Settings) -> ProbeMemory:
    """The peak while one clip of a network with random weights is probed, networks and clips included."""
    estimates: list[int] = []

    def run() -> None:
        probed = random_clip(config, settings)
        shape = shape_of_run(probed.networks["trained"], settings, probed.frames)
        estimates.append(sum(room(shape).values()))
        for name in settings.experiments:
            experiments.load(name).measure(probed)

    return ProbeMemory(measure.peak_bytes(run, settings.device), estimates[0])
