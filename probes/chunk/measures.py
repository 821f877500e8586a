"""What an intervention did: to the frame that is drawn, and to the velocity that is predicted.

Mean squared error alone rewards a blurred frame, the mean of all that could follow; hence sharpness and the
distance between two noise draws beside it.
"""

from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from framelens.probes.chunk.scale import IN_PIXELS, Scale
from framelens.probes.chunk.stage import DRAWS, Stage

ABOUT = {
    "mse": ("1", "mean squared error of the drawn frame, mean of two noise draws; {values}"),
    "psnr": ("dB", "peak signal-to-noise ratio of the drawn frame, {peak}, mean of two noise draws"),
    "sharpness": ("1", "gradient energy of the drawn frame over that of the truth: 1 is as sharp"),
    "diversity": ("1", "mean squared difference between the frames drawn from two noise draws"),
    "change": ("1", "mean squared difference from the frame that the plain model draws of the same noise"),
    "velocity_error": ("1", "mean squared error of the velocity at a noised true frame, mean of two draws"),
    "velocity_change": ("1", "squared distance from the plain velocity over that one's square, likewise"),
    "relative_loss": ("1", "velocity error over that of the whole model at this sigma, minus 1"),
    "block_share": ("1", "blocks that such a sampler runs per frame, of those that the plain one runs"),
    "effect": ("1", "root mean square change of the drawn frame over the root mean square of the plain one"),
    "must_fire": ("1", "1 for a control that has to change the frame, 0 for one that must not"),
    "passed": ("1", "1 where the control did what it has to"),
}

Frames = Float[Tensor, "draw f c h w"]


def of_frames(
    frames: Frames, plain: Frames, truth: Float[Tensor, "1 f c h w"], scale: Scale = IN_PIXELS
) -> dict[str, float]:
    """The measures of one condition's drawn chunk, pixels clipped to [-1, 1]; not finite where it is not."""
    drawn, untouched, true = (scale.bounded(_numbers(x)) for x in (frames, plain, truth))
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
    """Measures by place: an experiment fills it and reads a Dataset from it."""

    def __init__(self, *stages: Stage, **axes: list):
        """The stages whose work is counted, and the axes in their order."""
        self.stages, self.axes = stages, axes | {"sigma": stages[0].levels.tolist()}
        self._variables: dict[str, tuple[tuple[str, ...], np.ndarray]] = {}
        self._began = self._evaluations()
        self._passes = 0

    def _evaluations(self) -> int:
        return sum(stage.evaluations for stage in self.stages)

    def put_frames(self, frames: Frames, **place: Any) -> None:
        """Measures the frames that one condition drew."""
        stage = self.stages[0]
        self._passes += stage.steps
        self.put(of_frames(frames, stage.sample, stage.truth, stage.scale), **place)

    def put_velocities(self, velocity: Float[Tensor, "sigma draw f c h w"], **place: Any) -> None:
        """Measures one condition's velocities; with the axis `network`, of that stage."""
        stage = self._stage(place)
        self._passes += len(stage.levels)
        self.put(of_velocities(velocity, stage.plain_velocities, stage.target), **place)

    def put_plain(self) -> None:
        """Measures the whole model."""
        stage = self.stages[0]
        self._passes += stage.steps
        measured = of_frames(stage.sample, stage.sample, stage.truth, stage.scale)
        self.put({f"plain_{name}": value for name, value in measured.items() if name != "change"})
        for network in self.axes.get("network", [None]):
            place = {} if network is None else {"network": network}
            plain, target = self._stage(place).plain_velocities, stage.target
            self._passes += len(plain)
            error = of_velocities(plain, plain, target)["velocity_error"]
            self.put({"plain_velocity_error": error}, **place)

    def _stage(self, place: dict[str, Any]) -> Stage:
        return self.stages[self.axes["network"].index(place["network"]) if "network" in place else 0]

    def put(self, measured: dict[str, Any], **place: Any) -> None:
        """Notes measures at a place, arrays along sigma; places never noted are NaN."""
        for name, value in measured.items():
            dims = tuple(axis for axis in self.axes if axis in place) + ("sigma",) * np.ndim(value)
            if name not in self._variables:
                shape = [len(self.axes[axis]) for axis in dims]
                self._variables[name] = (dims, np.full(shape, np.nan, np.float32))
            index = tuple(self.axes[axis].index(place[axis]) for axis in dims if axis in place)
            self._variables[name][1][index] = value

    def dataset(self, **coords: Any) -> xr.Dataset:
        """All measures with `clip` in front, and the work that shared prefixes avoided as attributes."""
        stage = self.stages[0]
        variables = {
            name: (("clip", *dims), values[None], described(name, stage.scale))
            for name, (dims, values) in self._variables.items()
        }
        used = {dim for dims, _ in self._variables.values() for dim in dims}
        axes = {axis: values for axis, values in self.axes.items() if axis in used}
        if "layer" in used:
            coords["point"] = ("layer", [stage.layers.names[layer] for layer in self.axes["layer"]])
        about = {"frame": stage.frame, "steps": stage.steps, "draws": DRAWS}
        if self._passes:
            about["block_evaluations"] = self._evaluations() - self._began
            about["block_evaluations_of_rerunning"] = self._passes * DRAWS * len(stage.layers)
        return xr.Dataset(variables, {**axes, **coords}, about)


def described(name: str, scale: Scale = IN_PIXELS) -> dict[str, str]:
    """The units and the long name of a measure."""
    units, text = ABOUT[name.removeprefix("plain_")]
    text = text.format(values=scale.values, peak=scale.peak_name)
    return {"units": units, "long_name": f"{text}, of the whole model" if name.startswith("plain_") else text}
