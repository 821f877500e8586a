"""What watching costs: a rollout under all streaming statistics, beside the plain rollout and naive capture.

    framelens bench overhead --tokens 64 256 1024 --steps 8

A network of fixed width with random weights and open gates reads frames - 1 given frames and samples the
last. Arms: plain; plain once more, whose ratio shows the noise of the clock; all statistics, attached as
`framelens probe` attaches them, with their results tabulated; each statistic alone; and naive
capture, which keeps every tensor that the statistics read and every attention map, and reduces nothing.

Times are ratios to the plain arm of the same round. Memory is the peak above an empty process.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import torch

from framelens.analyses import statistics
from framelens.benchmarks import measure
from framelens.benchmarks.overhead import card as costs
from framelens.benchmarks.overhead.card import Rollout
from framelens.benchmarks.overhead.options import check_options, parser
from framelens.diffusion.sampler import rollout
from framelens.diffusion.schedule import sigma_grid
from framelens.hooks.trace import Trace
from framelens.models import dense
from framelens.models.loading.devices import device_name
from framelens.probes.experiments import rollouts
from framelens.records import origin, write_json
from framelens.records.commands import command_line, exits_as, read_options

PLAIN, AGAIN, ALL, NAIVE = "plain", "plain again", "all statistics", "naive capture"
NAIVE_LIMIT_BYTES = 4 * 2**30
"""Naive capture that would keep more is left out, so that the benchmark runs on a laptop."""


class Arms:
    """A network and a clip, and the ways to run them."""

    def __init__(self, setting: Rollout):
        device, self.setting = setting.device, setting
        draws = torch.Generator(device).manual_seed(setting.seed)
        with torch.device(device):
            self.network = dense.build(setting.config).eval().requires_grad_(False)
        for weight in self.network.parameters():
            # adaLN starts with closed gates; features after a closed gate would not change at all.
            weight.add_(0.02 * torch.randn(weight.shape, generator=draws, device=device))
        self.network.to(device, getattr(torch, setting.dtype))
        self.noise, self.video = (
            torch.randn(setting.noise_shape, generator=draws, device=device) for _ in range(2)
        )
        self.last = setting.frames - 1

    def run(self, name: str) -> None:
        """One rollout of that arm."""
        if name == NAIVE:
            self._naive()
        elif name in (PLAIN, AGAIN):
            self._rollout(lambda at: None)
        else:
            self._roll_out_watched(statistics.names() if name == ALL else [name])

    def _rollout(self, on_pass: Callable) -> None:
        given, sigmas = self.video[:, : self.last], sigma_grid(self.setting.steps)
        rollout(self.network, self.noise, sigmas, given=given, on_pass=on_pass)

    def _roll_out_watched(self, names: list[str]) -> None:
        streams = {name: statistics.new(name, self.setting.probing) for name in names}
        with rollouts.make_instruments(self.network, streams, {self.last}) as attached:
            self._rollout(attached.on_pass)
        for statistic in streams.values():
            statistic.result()

    def _naive(self) -> list[torch.Tensor]:
        kept: list[torch.Tensor] = []

        def keep(at: Any, name: str, value: torch.Tensor) -> None:
            if at.role == "denoise":
                kept.append(value)

        reads = [statistics.load(name).reads for name in statistics.names()]
        points = {point for each in reads if each != "attention" for point in each}
        with Trace(self.network.hook_dict, [*points, "*.hook_pattern"], keep) as trace:
            self._rollout(trace.on_pass)
        return kept


def arms_of(setting: Rollout) -> list[str]:
    """The arms that are run; naive capture only where it fits."""
    naive = [NAIVE] * (costs.naive_bytes(setting) <= NAIVE_LIMIT_BYTES)
    return [PLAIN, AGAIN, ALL, *statistics.names(), *naive]


def arm_peak_bytes(setting: Rollout, arm: str, threads: int) -> int:
    """The peak memory of one rollout of that arm, its network and its clip included; for a fresh process."""
    torch.set_num_threads(threads)
    # What the first call of a kernel or of an import allocates belongs to no arm; a shorter rollout of
    # as many tokens calls them all and stays below the peak of the longer one.
    Arms(replace(setting, frames=2, steps=2)).run(arm)
    return measure.peak_bytes(lambda: Arms(setting).run(arm), setting.device)


def measure_arms(setting: Rollout, repeats: int, memory: bool, names: Sequence[str] = ()) -> dict[str, dict]:
    """Seconds, bytes and their ratios to the plain arm, by arm; None for what was not measured.

    `names` are the arms, PLAIN among them; none for all.
    """
    arms, names = Arms(setting), names or arms_of(setting)
    runs = {name: partial(arms.run, name) for name in names}
    taken = measure.interleave(runs, repeats, setting.device, setting.seed)
    del arms, runs
    memory = memory and measure.can_measure_memory(setting.device)
    peaks = {name: _peak(setting, name) if memory else None for name in names}
    rows = {}
    for name in names:
        ratios, peak, plain = taken[name].over(taken[PLAIN]), peaks[name], peaks[PLAIN]
        rows[name] = {
            "wall_seconds": measure.spread(taken[name].wall_seconds),
            "wall_ratio": measure.spread(ratios["wall_seconds"]),
            "cpu_ratio": measure.spread(ratios["cpu_seconds"]),
            "peak_bytes": peak,
            "peak_bytes_ratio": None if peak is None or plain is None else peak / plain,
        }
    return rows


def _peak(setting: Rollout, arm: str) -> int:
    """Peak bytes of one arm: on a GPU in this process, on a CPU in a process of its own."""
    arguments = (setting, arm, torch.get_num_threads())
    if setting.device.startswith("cuda"):
        return arm_peak_bytes(*arguments)
    return measure.alone(arm_peak_bytes, *arguments)


def card(setting: Rollout) -> dict[str, dict]:
    """What arithmetic says before anything is timed."""
    plain = costs.plain_flops(setting)
    lines = {PLAIN: {"flops": plain, "flops_ratio": 1.0, "kept_bytes": 0}}
    for name, more in costs.statistic_costs(setting).items():
        lines[name] = {
            "flops": plain + more.operations,
            "flops_ratio": 1 + more.operations / plain,
            "kept_bytes": more.kept_bytes,
        }
    lines[NAIVE] = {"flops": None, "flops_ratio": None, "kept_bytes": costs.naive_bytes(setting)}
    return lines


def card_text(setting: Rollout, lines: dict[str, dict]) -> str:
    """The card as a table."""
    text = [
        f"\n{setting.tokens} tokens a frame, {setting.frames - 1} frames of history, {setting.steps} steps",
        f"{'by arithmetic':18}{'GFLOP':>10}{'ratio':>9}{'keeps MB':>11}",
    ]
    for name, line in lines.items():
        flops = _cell(line["flops"], 1e-9, "10.2f") + _cell(line["flops_ratio"], 1, "9.4f")
        text.append(f"{name:18}{flops}{_cell(line['kept_bytes'], 1e-6, '11.2f')}")
    if lines[NAIVE]["kept_bytes"] > NAIVE_LIMIT_BYTES:
        text.append(f"naive capture is left out: it would keep more than {NAIVE_LIMIT_BYTES / 1e9:.1f} GB")
    return "\n".join(text)


def table_text(rows: dict[str, dict]) -> str:
    """Medians, and the smallest and largest of the rounds in brackets."""
    columns = f"{'wall s':>9}{'wall ratio':>22}{'cpu ratio':>22}{'peak MB':>10}{'ratio':>8}"
    text = [f"{'measured':18}{columns}"]
    for name, row in rows.items():
        times = f"{row['wall_seconds']['median']:9.3f}{_spread(row['wall_ratio'])}{_spread(row['cpu_ratio'])}"
        memory = _cell(row["peak_bytes"], 1e-6, "10.1f") + _cell(row["peak_bytes_ratio"], 1, "8.2f")
        text.append(f"{name:18}{times}{memory}")
    return "\n".join(text)


def _spread(values: dict[str, float]) -> str:
    return f"{values['median']:8.3f} [{values['min']:.2f}, {values['max']:.2f}]".rjust(22)


def _cell(value: float | None, scale: float, form: str) -> str:
    return "-".rjust(int(form.split(".")[0])) if value is None else format(value * scale, form)


@exits_as("bench overhead")
def main(arguments: list[str]) -> int:
    """Exit status: 0 when all was measured, 2 when the request cannot be met."""
    options = read_options(parser(), arguments)
    settings = {name: value for name, value in vars(options).items() if name != "json"}
    about = origin(command_line("bench overhead", arguments), "torch", "numpy") | {"settings": settings}
    document = {"kind": "overhead"} | about | benchmark(options)
    if options.json is not None:
        write_json(options.json, document)
    print(json.dumps(document))
    return 0


def benchmark(options: argparse.Namespace) -> dict:
    """Cards and measurements of every token count, printed as they come."""
    check_options(options)
    settings = [
        Rollout(tokens, options.frames, options.steps, options.device, options.seed, options.layers)
        for tokens in options.tokens
    ]
    machine = _machine(options.device)
    print(f"{machine['device']}, {machine['threads']} threads, torch {machine['torch']}")
    print(
        f"Dense network of {options.layers} layers, {costs.HEADS} heads, width {costs.WIDTH}; random weights"
    )
    print(f"median [min, max] of {options.repeats} rounds")
    results = []
    for setting in settings:
        lines = card(setting)
        print(card_text(setting, lines), flush=True)
        rows = measure_arms(setting, options.repeats, options.memory)
        print(table_text(rows), flush=True)
        results.append({**asdict(setting), "card": lines, "measured": rows})
    network = {"heads": costs.HEADS, "d_model": costs.WIDTH}
    return {"machine": machine, "network": network, "repeats": options.repeats, "results": results}


def _machine(device: str) -> dict:
    name = device_name(device)
    return {"device": name, "threads": torch.get_num_threads(), "torch": torch.__version__}


if __name__ == "__main__":
    sys.exit(main())
