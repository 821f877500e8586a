"""What watching costs: a rollout under all streaming statistics, beside the plain rollout and naive capture.

    python -m benchmarks.probe_overhead --tokens 64 256 1024 --steps 10

A network of fixed width with random weights and open gates reads frames - 1 given frames and samples the
last. Arms: plain; plain a second time, whose ratio shows the noise of the clock; all statistics, attached
as `python -m probes` attaches them and with their results tabulated; each statistic alone; and naive
capture, which keeps every tensor that the statistics read and every attention map, and reduces nothing.

Time is a ratio to the plain arm of the same round. On a shared machine the ratio of processor time says
more than that of wall time. Memory is the peak above a process that holds neither network nor clip.
"""

import argparse
import json
import platform
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from math import isqrt
from pathlib import Path
from typing import Any

import torch

import analyses
from benchmarks import _measure
from benchmarks._probe_card import added, naive_bytes, plain_flops
from diffusion.sampler import rollout
from diffusion.schedule import sigma_grid
from hooks.trace import Trace
from models import dense
from probes import rollouts
from probes.settings import Settings

CHANNELS, LAYERS, HEADS, WIDTH = 16, 6, 4, 256
PLAIN, AGAIN, ALL, NAIVE = "plain", "plain again", "all statistics", "naive capture"
NAIVE_LIMIT_BYTES = 4 * 2**30
"""Naive capture that would keep more is left out, so that the benchmark runs on a laptop."""


@dataclass(frozen=True)
class Rollout:
    """One rollout to be watched: everything that decides its cost."""

    tokens: int
    frames: int
    steps: int
    device: str
    seed: int

    def __post_init__(self):
        if self.tokens < 1 or isqrt(self.tokens) ** 2 != self.tokens:
            raise ValueError(f"--tokens must be squares of whole numbers such as 64 or 1024, got {self.tokens}")
        if self.frames < 2:
            raise ValueError(f"--frames must be at least 2, one of history and one sampled, got {self.frames}")
        if self.steps < 2:
            raise ValueError(f"--steps must be at least 2, since steps are compared, got {self.steps}")

    @property
    def config(self) -> dense.Config:
        side = isqrt(self.tokens)
        return dense.Config(CHANNELS, side, side, 1, LAYERS, HEADS, WIDTH)

    @property
    def settings(self) -> Settings:
        """What a probe of this rollout would be asked to do."""
        return Settings(frames=self.frames, context=self.frames - 1, probed=1, steps=self.steps)


class Arms:
    """A network and a clip, and the ways to run them; each arm is a function without arguments."""

    def __init__(self, setting: Rollout):
        draws = torch.Generator().manual_seed(setting.seed)
        self.setting, self.network = setting, dense.build(setting.config).eval().requires_grad_(False)
        for weight in self.network.parameters():
            # adaLN starts with closed gates, behind which features would not change at all.
            weight.add_(0.02 * torch.randn(weight.shape, generator=draws))
        self.network.to(setting.device)
        side = isqrt(setting.tokens)
        clip = torch.randn(2, 1, setting.frames, CHANNELS, side, side, generator=draws)
        self.noise, self.video = clip.to(setting.device)
        self.last = setting.frames - 1

    def run(self, name: str) -> None:
        """One rollout of that arm."""
        if name == NAIVE:
            self._naive()
        elif name in (PLAIN, AGAIN):
            self._rollout(lambda at: None)
        else:
            self._watched(analyses.names() if name == ALL else [name])

    def _rollout(self, on_pass: Callable) -> None:
        given, sigmas = self.video[:, : self.last], sigma_grid(self.setting.steps)
        rollout(self.network, self.noise, sigmas, given=given, on_pass=on_pass)

    def _watched(self, names: list[str]) -> None:
        statistics = {name: rollouts._statistic(name, self.setting.settings) for name in names}
        with ExitStack() as stack:
            self._rollout(rollouts.attach(stack, self.network, statistics, {self.last}))
        for statistic in statistics.values():
            statistic.result()

    def _naive(self) -> None:
        kept = []

        def keep(at: Any, name: str, value: torch.Tensor) -> None:
            if at.role == "denoise":
                kept.append(value)

        points = {point for name in analyses.names() for point in analyses.load(name).reads if "*" in point}
        with Trace(self.network.hook_dict, [*points, "*.hook_pattern"], keep) as trace:
            self._rollout(trace.on_pass)


def arms_of(setting: Rollout) -> list[str]:
    """The arms that are run; naive capture only where it fits."""
    fits = naive_bytes(setting) <= NAIVE_LIMIT_BYTES
    return [PLAIN, AGAIN, ALL, *analyses.names(), *([NAIVE] if fits else [])]
