"""Times of all arms: at the preset's setting, and by history, denoising steps, decoder depth and batch.

    bench = Bench(settings, machine)
    bench.own()                                    # dims (arm, round)
    for name, dataset in bench.sweeps(): ...       # "bench_history", ...: (<varied quantity>, arm, round)

Predictions have no dimension `round`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import xarray as xr

from framelens.benchmarks import measure
from framelens.benchmarks.scd.arms import PLAIN, Arm, network
from framelens.benchmarks.scd.plan import PlannerPrediction
from framelens.benchmarks.scd.presets import DENSE as DENSE
from framelens.benchmarks.scd.presets import FETCH_ONCE, Preset
from framelens.models.cost.machine import Machine
from framelens.models.cost.operations import (
    VALUE_BYTES,
    Shape,
    cache_bytes,
    encode_cost,
    frame_cost,
    speed_up_bound,
)
from framelens.records.progress import progress_bar

VARIED = {
    "history": ("frames", "frames of history"),
    "steps": ("1", "denoising steps"),
    "decoder_layers": ("layers", "layers of the decoder"),
    "batch": ("clips", "batch"),
}
QUANTITIES = {
    "sample_seconds": ("s", "all denoising steps of a frame"),
    "encode_seconds": ("s", "encoding a finished frame"),
    "frame_flops": ("1", "operations of a frame; a multiply-add counts as two"),
    "encode_flops": ("1", "operations of encoding a frame"),
    "cache_bytes": ("B", "keys and values held"),
    "sample_roofline_seconds": ("s", "least time of all denoising steps, by operations, bytes and launches"),
    "encode_roofline_seconds": ("s", "least time of encoding a frame"),
    "speed_up_bound": ("1", "limit of the speed-up by operations, for many steps"),
}


@dataclass(frozen=True)
class BenchSettings:
    """What is timed: a preset, what is compared with dense, capture modes, device, dtype, rounds."""

    preset: Preset
    fusions: Sequence[str]
    """Of separated networks, and FETCH_ONCE."""
    modes: Sequence[str]
    device: str
    dtype: str
    repeats: int
    seed: int = 0
    """Seed of weights, frames and the order of arms; times do not depend on it."""
    prediction: PlannerPrediction | None = None
    """A planner's prediction for this split."""

    @property
    def networks(self) -> list[str]:
        """The names of the networks: dense, and what is compared with it."""
        return [DENSE, *self.fusions]

    @property
    def arms(self) -> dict[str, tuple[str, str]]:
        """Network and mode of each arm by name; a dense network has no fixed shapes to compile, and one that
        fetches once is not captured."""
        both = [(network, mode) for mode in self.modes for network in self.networks]
        fitting = [
            (network, mode)
            for network, mode in both
            if (network, mode) != (DENSE, "compile") and (network != FETCH_ONCE or mode == PLAIN)
        ]
        return {n if mode == PLAIN else f"{n}, {mode}": (n, mode) for n, mode in fitting}

    def shape(self, name: str, **changes) -> Shape:
        """The shape of a network, with the bytes of the dtype."""
        return self.preset.shape(name, value_bytes=VALUE_BYTES[self.dtype], **changes)


class Bench:
    """All arms, and their times at one point of the sweeps after another."""

    def __init__(self, settings: BenchSettings, machine: Machine):
        self.settings, self.machine = settings, machine
        self.arms = self._build(settings.networks)

    def _build(self, names: Sequence[str], decoder_layers: int | None = None) -> dict[str, Arm]:
        settings = self.settings
        models = {
            n: network(settings.preset, n, settings.device, settings.dtype, settings.seed, decoder_layers)
            for n in names
        }
        return {
            arm: Arm(models[n], settings.preset, settings.device, settings.seed, mode)
            for arm, (n, mode) in settings.arms.items()
            if n in models
        }

    def sweeps(self) -> Iterator[tuple[str, xr.Dataset]]:
        """Each sweep's name and dataset, as soon as it is finished."""
        preset = self.settings.preset
        total, about = sum(map(len, preset.varied.values())), f"timing {preset.name}"
        with progress_bar(total=total, unit="point", desc=about, leave=False, is_shown=bool(total)) as bar:
            for varied, values in preset.varied.items():
                points = []
                for value in sorted(set(values)):
                    points.append(self._point(**{varied: value}).assign_coords({varied: value}))
                    bar.update()
                if points:
                    yield f"bench_{varied}", self._join(varied, points)

    def own(self) -> xr.Dataset:
        """Times and predictions of all arms at the preset's setting."""
        return self._describe(self._point(), QUANTITIES)

    def _point(self, **changed: int) -> xr.Dataset:
        """Times and predictions of all arms at the preset's setting with these changes."""
        preset = self.settings.preset
        at = {"history": preset.history, "steps": preset.steps, "decoder_layers": None, "batch": preset.batch}
        at |= changed
        arms = self.arms
        if at["decoder_layers"] not in (None, preset.scd.decoder_layers):
            arms = arms | self._build(self.settings.fusions, at["decoder_layers"])
        for arm in arms.values():
            arm.reach(at["history"], at["batch"])
        measured = self._time(arms, at["steps"])
        return self._predict(at).merge(measured)

    def _time(self, arms: dict[str, Arm], steps: int) -> xr.Dataset:
        runs, before = {}, {}
        for name, arm in arms.items():
            sigmas = arm.sigmas(steps)
            arm.warm(sigmas)
            runs |= {(name, "sample"): partial(arm.sample, sigmas), (name, "encode"): arm.encode}
            before |= {(name, "sample"): arm.prepare_sample, (name, "encode"): arm.prepare_encode}
        settings = self.settings
        taken = measure.interleave(runs, settings.repeats, settings.device, settings.seed, before)
        seconds = {
            f"{part}_seconds": (("arm", "round"), [taken[name, part].wall_seconds for name in arms])
            for part in ("sample", "encode")
        }
        return xr.Dataset(seconds, {"arm": list(arms)})

    def _predict(self, at: dict) -> xr.Dataset:
        """Operations, bytes and roofline times of every arm at that point."""
        history, steps, settings = at["history"], at["steps"], self.settings
        changes = {"decoder_layers": at["decoder_layers"], "batch": at["batch"]}
        dense, rows = settings.shape(DENSE, batch=at["batch"]), []
        for name, _ in settings.arms.values():
            shape = dense if name == DENSE else settings.shape(name, **changes)
            rows.append(
                {
                    "frame_flops": frame_cost(shape, steps, history).flops,
                    "encode_flops": shape.branches * encode_cost(shape, history).flops,
                    "cache_bytes": cache_bytes(shape, history),
                    "sample_roofline_seconds": self.machine.sample_seconds(shape, steps, history),
                    "encode_roofline_seconds": self.machine.encode_seconds(shape, history),
                    "speed_up_bound": speed_up_bound(dense, shape, history),
                }
            )
        return xr.Dataset({key: ("arm", [float(row[key]) for row in rows]) for key in rows[0]})

    def _join(self, varied: str, points: list[xr.Dataset]) -> xr.Dataset:
        joined = xr.concat(points, varied, data_vars="all", coords="minimal", compat="equals", join="exact")
        return self._describe(joined, QUANTITIES | {varied: VARIED[varied]})

    def _describe(self, points: xr.Dataset, about: dict[str, tuple[str, str]]) -> xr.Dataset:
        """The dataset with network and mode of each arm, units, and the settings that are not varied."""
        arms, preset = self.settings.arms.values(), self.settings.preset
        points = points.assign_coords(
            network=("arm", [n for n, _ in arms]), mode=("arm", [m for _, m in arms])
        )
        for name, (unit, words) in about.items():
            points[name].attrs = {"units": unit, "long_name": words}
        setting = {"history": preset.history, "steps": preset.steps, "batch": preset.batch}
        setting["decoder_layers"] = preset.scd.decoder_layers
        return points.assign_attrs({key: value for key, value in setting.items() if key not in points.dims})

    def first_frames(self) -> xr.DataArray:
        """Seconds for `start` (which reads the prompt) and the first frame, by arm and round."""
        settings = self.settings
        runs = {
            name: partial(arm.first_frame, arm.sigmas(settings.preset.steps))
            for name, arm in self.arms.items()
        }
        taken = measure.interleave(runs, settings.repeats, settings.device, settings.seed)
        values = [taken[name].wall_seconds for name in runs]
        attrs = {"units": "s", "long_name": "start and first frame"}
        return xr.DataArray(values, {"arm": list(runs)}, ("arm", "round"), attrs=attrs)

    def differences(self) -> xr.DataArray:
        """Largest difference of a captured arm's frame from the plain arm's, over the largest value."""
        preset, frames = self.settings.preset, {}
        is_compared = any(mode != PLAIN for _, mode in self.settings.arms.values())
        for name, arm in self.arms.items():
            arm.reach(preset.history, preset.batch)
            for _ in range(3 if is_compared else 0):  # the last one is replayed
                arm.prepare_sample()
                frames[name] = arm.sample(arm.sigmas(preset.steps)).float()
        values = [np.nan] * len(self.arms)
        for place, (name, (plain, mode)) in enumerate(self.settings.arms.items()):
            if mode != PLAIN and plain in frames:
                worst = (frames[name] - frames[plain]).abs().max() / frames[plain].abs().max()
                values[place] = float(worst)
        attrs = {"units": "1", "long_name": "largest relative difference of a captured frame"}
        return xr.DataArray(values, {"arm": list(self.arms)}, ("arm",), attrs=attrs)
