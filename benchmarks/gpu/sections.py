"""The sections of a GPU's benchmark in the order of their value, each with the seconds that it is estimated
to take."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from framelens.benchmarks.gpu import checks, probing, separation
from framelens.benchmarks.gpu.checks import COMPILED
from framelens.benchmarks.gpu.readings import Reading
from framelens.benchmarks.gpu.sizes import DaySizes
from framelens.benchmarks.gpu.training_step import measure_training_step

Measuring = Callable[[DaySizes, Path], Sequence[Reading]]
LARGE = ", size of Wan 1.3B"


@dataclass(frozen=True)
class Section:
    """A part of the benchmark: its name in the results, its title, what measures it."""

    name: str
    title: str
    seconds: float
    """Estimated, on an H100; no one has measured it."""
    measure: Measuring
    """Of the sizes and the folder of the results."""

    def cost(self, sizes: DaySizes) -> float:
        """The estimated seconds at those sizes."""
        return TOY_SECONDS if sizes.is_rehearsal else self.seconds


TOY_SECONDS = 5
"""Estimated seconds of any section of a rehearsal."""


def sections(presets: Sequence[str]) -> list[Section]:
    """All sections, for these presets of `framelens bench scd`."""

    def separation_of(preset: str, mode: str, seconds: float) -> Section:
        compiled = mode == "compile"
        name = f"{preset}-compile" if compiled else preset
        title = f"Dense against separated: {preset}{', compiled steps' if compiled else ', CUDA graphs'}"
        return Section(name, title, seconds, partial(separation.time_separation, preset=preset, mode=mode))

    return [
        Section("kernels", "Attention kernels", 5, _of_sizes(checks.test_kernels)),
        Section("parity", "Rollouts on the GPU against the CPU", 20, _of_sizes(checks.compare_rollouts)),
        *(separation_of(preset, "graph", 90) for preset in presets),
        Section("overhead", f"Probe overhead{LARGE}", 50, _of_sizes(probing.measure_overhead)),
        Section("roofline", "Roofline", 5, separation.measure_roofline),
        Section("tests", "Tests marked gpu", 75, _of_sizes(checks.run_tests, keyword=f"not {COMPILED}")),
        Section("memory", f"Peak memory of a probe{LARGE}", 40, _of_sizes(probing.compare_memory)),
        Section("training", f"A training step{LARGE}, separated", 40, _of_sizes(measure_training_step)),
        *(separation_of(preset, "compile", 75) for preset in presets),
        Section(
            "tests-compile", "Tests of compiled steps", 120, _of_sizes(checks.run_tests, keyword=COMPILED)
        ),
    ]


def _of_sizes(measure: Callable[..., Sequence[Reading]], **options: str) -> Measuring:
    """What measures a section that needs the sizes alone."""

    def run(sizes: DaySizes, out: Path) -> Sequence[Reading]:
        return measure(sizes, **options)

    return run
