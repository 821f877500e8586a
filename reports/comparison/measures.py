"""What two runs are compared in: one value by clip and layer, or by clip and frame.

for measure in MEASURES:
    values = measure.values(run)      # DataArray (clip, layer), on the scale measure.scale
"""

from collections.abc import Callable
from dataclasses import dataclass

import xarray as xr

from framelens.analyses.averages import by_head, noisiest, off_diagonal, uniform_share
from framelens.analyses.decision.repeated_features import TOKEN_COSINE
from framelens.analyses.scales import COSINE, LOG, PLAIN, SHARE, MeasureScale
from framelens.reports.drawing.effects import TRAINED
from framelens.reports.runs import Run


@dataclass(frozen=True)
class Measure:
    """One quantity that several runs are compared in."""

    name: str
    title: str
    unit: str
    needs: tuple[str, ...]
    values: Callable[[Run], xr.DataArray]
    """By clip, and by layer or frame."""
    scale: MeasureScale
    along: str = "layer"
    """The axis beside clip."""
    variable: str | None = None
    """What runs of older versions lack in the dataset that it needs."""

    @property
    def is_ratio(self) -> bool:
        """Whether two runs are compared by the ratio of the values, not by their difference."""
        return self.scale is LOG


def _between_steps(run: Run) -> xr.DataArray:
    stored = run.read("step_similarity", TOKEN_COSINE, network=TRAINED)
    return off_diagonal(stored[TOKEN_COSINE].mean("frame"))


def _between_draws(run: Run) -> xr.DataArray:
    return noisiest(run.read("noise_invariance", network=TRAINED))[TOKEN_COSINE]


def _cross_mass(run: Run) -> xr.DataArray:
    stored = run.read("frame_attention", "cross_mass", "uniform", network=TRAINED)
    return by_head(stored.cross_mass, uniform_share(stored)).mean("head")


def _error_ratio(dataset: str, **where: str) -> Callable[[Run], xr.DataArray]:
    def values(run: Run) -> xr.DataArray:
        stored = run.read(dataset, network=TRAINED)
        changed = stored.velocity_error.sel({d: v for d, v in where.items() if d in stored.dims}, drop=True)
        return changed.mean("sigma") / stored.plain_velocity_error.mean("sigma")

    return values


def _read_out(run: Run) -> xr.DataArray:
    return run.read("readout", network=TRAINED).r2


def _psnr(mode: str) -> Callable[[Run], xr.DataArray]:
    def values(run: Run) -> xr.DataArray:
        return run.read("samples", "psnr", mode=mode).psnr.dropna("frame", how="all")

    return values


MEASURES = (
    Measure(
        "psnr_teacher_forced", "Generated frame, true past given", "PSNR (dB)", ("samples",),
        _psnr("teacher_forced"), PLAIN, "frame",
    ),
    Measure(
        "psnr_free_running", "Generated frame, own past", "PSNR (dB)", ("samples",),
        _psnr("free_running"), PLAIN, "frame",
    ),
    Measure(
        "step_similarity", "Features at different denoising steps", "median cosine of tokens",
        ("step_similarity",), _between_steps, COSINE, variable=TOKEN_COSINE,
    ),
    Measure(
        "noise_invariance", "Two noise draws at the highest sigma", "median cosine of tokens",
        ("noise_invariance",), _between_draws, COSINE, variable=TOKEN_COSINE,
    ),
    Measure(
        "cross_mass", "Attention to earlier frames", "share of attention",
        ("frame_attention",), _cross_mass, SHARE,
    ),
    Measure(
        "cut_from", "Past cut from this layer on", "velocity error / whole model's",
        ("cut",), _error_ratio("cut", where="from"), LOG,
    ),
    Measure(
        "leave_one_out", "Layer left out", "velocity error / whole model's",
        ("leave_one_out",), _error_ratio("leave_one_out"), LOG,
    ),
    Measure("readout", "Clean frame read out", "R²", ("readout",), _read_out, PLAIN),
)  # fmt: skip
"""In the order of the page."""
