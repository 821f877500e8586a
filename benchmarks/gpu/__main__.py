"""Everything that only a GPU can show, in one command of a few minutes.

    framelens bench gpu                                # on a CUDA GPU, at most 9 minutes
    framelens bench gpu --minutes 20 --out runs/bench/h100
    framelens bench gpu --rehearse                     # on a CPU at toy sizes

Sections in the order of their value: attention kernels, rollouts against those of a CPU, dense against
separated networks beside the paper's numbers, probe overhead, roofline, tests marked gpu, peak memory, a
training step, compiled steps. Each has an estimated time, and one that does not fit into what is left of
--minutes is listed as not measured. JSON, table and page are written after each section; the same command
measures what is missing.
"""

import argparse
import math
import sys
from pathlib import Path

from framelens.records.commands import command_line, exits_as, read_options

MINUTES = 9.0
PRESETS = ("minecraft", "wan-1.3b")


@exits_as("bench gpu", stopped="finished sections are kept; the same command measures what is missing")
def main(arguments: list[str]) -> int:
    """Exit status: 0, 1 where a section failed, 2 when the request is not possible."""
    import time

    end = time.perf_counter()
    options = read_options(parser(), arguments)
    end += 60 * options.minutes
    if not (math.isfinite(options.minutes) and options.minutes > 0):
        raise ValueError(f"--minutes must be positive, got {options.minutes:g}")

    from framelens.benchmarks.gpu.day import FILE, Day
    from framelens.benchmarks.gpu.report import table_text
    from framelens.benchmarks.gpu.sections import sections
    from framelens.benchmarks.gpu.sizes import choose_sizes
    from framelens.models.loading.devices import device_name
    from framelens.records import origin

    sizes = choose_sizes(options.device, options.preset, options.rehearse)
    card = device_name(sizes.device)
    out = options.out or Path("runs/bench") / ("gpu-rehearsal" if sizes.is_rehearsal else "gpu")
    day = Day(out, sizes, card, origin(command_line("bench gpu", arguments), "torch"))
    is_sound = day.measure(sections(list(sizes.presets)), end - time.perf_counter())
    print(f"\n{table_text(day.document)}\n{out / FILE}\n{out / 'gpu.md'}\n{out / 'page.html'}")
    return 0 if is_sound else 1


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="framelens bench gpu", description="measures on a GPU everything that only a GPU can show"
    )
    parser.add_argument(
        "--minutes", type=float, default=MINUTES, help=f"time for all sections (default: {MINUTES:g})"
    )
    parser.add_argument("--device", default="cuda", help="cuda or cuda:N (default: cuda)")
    parser.add_argument(
        "--preset", nargs="+", choices=PRESETS, default=list(PRESETS),
        help="presets of bench scd that are timed (default: both)",
    )  # fmt: skip
    parser.add_argument(
        "--rehearse", action="store_true", help="run every section on the CPU at toy sizes, without a GPU"
    )
    parser.add_argument("--out", type=Path, help="folder for the results (default: runs/bench/gpu)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
