"""What an intervention changed: in the generated frames and in the predicted velocity.

Mean squared error alone rewards a blurred frame, the mean of all frames that could follow. So sharpness and
the distance between two noise draws are measured, too.
"""

from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from framelens.probes.chunk.chunk_probe import DRAWS, ChunkProbe
from framelens.probes.chunk.scale import IN_PIXELS, Scale

ABOUT = {
    "mse": ("1", "mean squared error of the generated frame, mean of two noise draws; {values}"),
    "psnr": ("dB", "peak signal-to-noise ratio of the generated frame, {peak}, mean of two noise draws"),
    "sharpness": ("1", "gradient energy of the generated frame over that of the truth; 1: equally sharp"),
    "diversity": ("1", "mean squared difference between the frames generated from two noise draws"),
    "change": (
        "1",
        "mean squared difference from the frame that the plain model generates from the same noise",
    ),
    "velocity_error": ("1", "mean squared error of the velocity at a noised true frame, mean of two draws"),
    "velocity_change": ("1", "squared distance from the plain velocity over its square, mean of two draws"),
    "relative_loss": ("1", "velocity error over that of the whole model at this sigma, minus 1"),
    "block_share": ("1", "share of the plain sampler's blocks that this sampler runs per frame"),
    "effect": ("1", "root mean square change of the frame over the root mean square of the plain one"),
    "past_effect": ("1", "effect of another clip's frames as past; no instrument is attached"),
    "must_fire": ("1", "1 for a control that must change the frame, 0 for one that must not"),
    "passed": ("1", "1 where the control had the effect that it must have"),
}

Frames = Float[Tensor, "draw f c h w"]


def of_frames(
    frames: Frames, plain: Frames, truth: Float[Tensor, "1 f c h w"], scale: Scale = IN_PIXELS
) -> dict[str, float]:
    """The measures of one condition's generated chunk, pixels clipped to [-1, 1]."""
    drawn, untouched, true = (scale.limit_range(_numbers(x)) for x in (frames, plain, truth))
    error = np.mean((drawn - true) ** 2, axis=(1, 2, 3, 4))
    return {
        "mse": float(error.mean()),
        "psnr": float(np.mean(scale.decibels(error))),
        "sharpness": _ratio(_gradient_energy(drawn), _gradient_energy(true)),
        "diversity": float(np.mean((drawn[0] - drawn[1]) ** 2)),
        "change": float(np.mean((drawn - untouched) ** 2)),
    }


def of_velocities(
    velocity: Float[Tensor, "sigma draw f c h w"],
    plain: Float[Tensor, "sigma draw f c h w"],
    target: Float[Tensor, "draw f c h w"],
) -> dict[str, np.ndarray]:
    """velocity_error and velocity_change of one condition, each [sigma]."""
    velocity, plain, target = velocity.double(), plain.double(), target.double()
    others = tuple(range(1, velocity.ndim))
    change = ((velocity - plain) ** 2).mean(others) / (plain**2).mean(others)
    error = ((velocity - target) ** 2).mean(others)
    return {"velocity_error": error.cpu().numpy(), "velocity_change": change.cpu().numpy()}


def _numbers(x: Tensor) -> np.ndarray:
    return x.detach().double().cpu().numpy()


def _gradient_energy(frames: np.ndarray) -> float:
    return float(sum(np.mean(np.diff(frames, axis=axis) ** 2) for axis in (-1, -2)))


def _ratio(value: float, reference: float) -> float:
    return value / reference if reference > 0 else float("nan")


class Table:
    """A table of measures: an experiment fills it and gets a Dataset from it."""

    def __init__(self, *probes: ChunkProbe, **axes: list):
        """The chunk probes whose layer evaluations are counted, and the axes in their order."""
        self.probes, self.axes = probes, axes | {"sigma": probes[0].levels.tolist()}
        self._variables: dict[str, tuple[tuple[str, ...], np.ndarray]] = {}
        self._began = self._evaluations()
        self._passes = 0

    def _evaluations(self) -> int:
        return sum(probe.evaluations for probe in self.probes)

    def put_frames(self, frames: Frames, **place: Any) -> None:
        """Adds the measures of the frames that one condition generated."""
        probe = self.probes[0]
        self._passes += probe.steps
        self.put(of_frames(frames, probe.sample, probe.truth, probe.scale), **place)

    def put_velocities(self, velocity: Float[Tensor, "sigma draw f c h w"], **place: Any) -> None:
        """Adds the measures of one condition's velocities, of that network if the place names one."""
        probe = self._probe_of(place)
        self._passes += len(probe.levels)
        self.put(of_velocities(velocity, probe.plain_velocities, probe.target), **place)

    def put_plain(self) -> None:
        """Adds the measures of the whole model."""
        probe = self.probes[0]
        self._passes += probe.steps
        measured = of_frames(probe.sample, probe.sample, probe.truth, probe.scale)
        self.put({f"plain_{name}": value for name, value in measured.items() if name != "change"})
        for network in self.axes.get("network", [None]):
            place = {} if network is None else {"network": network}
            plain, target = self._probe_of(place).plain_velocities, probe.target
            self._passes += len(plain)
            error = of_velocities(plain, plain, target)["velocity_error"]
            self.put({"plain_velocity_error": error}, **place)

    def _probe_of(self, place: dict[str, Any]) -> ChunkProbe:
        return self.probes[self.axes["network"].index(place["network"]) if "network" in place else 0]

    def put(self, measured: dict[str, Any], **place: Any) -> None:
        """Adds measures at a place, arrays along sigma; places without a measure are NaN."""
        for name, value in measured.items():
            dims = tuple(axis for axis in self.axes if axis in place) + ("sigma",) * np.ndim(value)
            if name not in self._variables:
                shape = [len(self.axes[axis]) for axis in dims]
                self._variables[name] = (dims, np.full(shape, np.nan, np.float32))
            index = tuple(self.axes[axis].index(place[axis]) for axis in dims if axis in place)
            self._variables[name][1][index] = value

    def dataset(self, **coords: Any) -> xr.Dataset:
        """All measures with `clip` as first axis; as attributes the layer evaluations."""
        probe = self.probes[0]
        variables = {
            name: (("clip", *dims), values[None], describe_measure(name, probe.scale))
            for name, (dims, values) in self._variables.items()
        }
        used = {dim for dims, _ in self._variables.values() for dim in dims}
        axes = {axis: values for axis, values in self.axes.items() if axis in used}
        if "layer" in used:
            coords["point"] = ("layer", [probe.layers.names[layer] for layer in self.axes["layer"]])
        about = {"frame": probe.frame, "steps": probe.steps, "draws": DRAWS}
        if self._passes:
            about["block_evaluations"] = self._evaluations() - self._began
            about["block_evaluations_of_rerunning"] = self._passes * DRAWS * len(probe.layers)
        return xr.Dataset(variables, {**axes, **coords}, about)


def describe_measure(name: str, scale: Scale = IN_PIXELS) -> dict[str, str]:
    """The units and the long name of a measure."""
    units, text = ABOUT[name.removeprefix("plain_")]
    text = text.format(values=scale.values, peak=scale.peak_name)
    return {"units": units, "long_name": f"{text}, of the whole model" if name.startswith("plain_") else text}
