"""What the figures of a benchmark share: its times over rounds, the colours of its arms, the heading.

times = timings(run, "bench_history")        # frame, step and encode seconds, speed-up: median, min, max
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from framelens.records.manifest import BenchManifest
from framelens.reports.drawing import style
from framelens.reports.runs import Run

DENSE = "dense"
# The palette of Okabe and Ito; the dashes show a mode other than plain.
COLOURS = {
    DENSE: "#000000", "token_concat": "#0072B2", "token_concat_projected": "#56B4E9",
    "channel_concat": "#009E73", "add": "#E69F00", "prefix": "#D55E00", "residual": "#CC79A7",
    "fetch_once": "#B8A800", "asking": "#8C510A",
}  # fmt: skip
MARKERS = {
    DENSE: "s", "token_concat": "o", "token_concat_projected": "D",
    "channel_concat": "^", "add": "v", "prefix": "X", "residual": "P",
    "fetch_once": "*", "asking": "h",
}  # fmt: skip
DASHES = {"plain": "-", "graph": "--", "compile": ":"}
MEASURES = ("frame_seconds", "step_seconds", "encode_seconds", "speed_up")


def timings(run: Run, dataset: str) -> xr.Dataset:
    """Median and extremes over rounds, dims (<what is varied>, arm), with predictions beside them.

    The speed-up is the ratio to the dense arm of the same round.
    """
    stored = run.read(dataset)
    varied = varied_of(dataset)
    steps = stored["steps"] if varied == "steps" else stored.attrs["steps"]
    frame = stored.sample_seconds + stored.encode_seconds
    measured = {
        "frame_seconds": frame,
        "step_seconds": stored.sample_seconds / steps,
        "encode_seconds": stored.encode_seconds,
        "speed_up": frame.sel(arm=DENSE, drop=True) / frame,
    }
    spread = {"median": "median", "low": "min", "high": "max"}
    times = xr.Dataset(
        {
            f"{name}_{word}": getattr(values, reduce)("round")
            for name, values in measured.items()
            for word, reduce in spread.items()
        }
    )
    roofline = stored.sample_roofline_seconds + stored.encode_roofline_seconds
    times["frame_roofline"] = roofline
    times["step_roofline"] = stored.sample_roofline_seconds / steps
    times["encode_roofline"] = stored.encode_roofline_seconds
    times["speed_up_roofline"] = roofline.sel(arm=DENSE, drop=True) / roofline
    times["speed_up_flops"] = stored.frame_flops.sel(arm=DENSE, drop=True) / stored.frame_flops
    times["speed_up_bound"] = stored.speed_up_bound
    return times


def varied_of(dataset: str) -> str:
    """What a sweep varies."""
    return dataset.removeprefix("bench_")


def arms(times: xr.Dataset, with_dense: bool = True) -> Iterator[tuple[str, xr.Dataset, dict]]:
    """Name, values and look of every arm."""
    for arm in times.arm.values:
        own = times.sel(arm=arm)
        network, mode = str(own.network.values), str(own["mode"].values)
        if with_dense or network != DENSE:
            look = {"color": COLOURS.get(network, "#7A7A7A"), "marker": MARKERS.get(network, "o")}
            yield (
                style.spell_arm(str(arm)),
                own,
                look | {"linestyle": DASHES.get(mode, "-"), "markersize": 4},
            )


def curve(axes: Axes, own: xr.Dataset, measure: str, label: str, look: dict, scale: float = 1.0) -> None:
    """Draws the medians as a line and the span of the rounds as a band."""
    x = own[_varied_in(own)].values
    axes.plot(x, scale * own[f"{measure}_median"], label=label, **look)
    low, high = scale * own[f"{measure}_low"], scale * own[f"{measure}_high"]
    axes.fill_between(x, low, high, color=look["color"], alpha=0.18, linewidth=0)


def table(times: xr.Dataset, **labels: str) -> pd.DataFrame:
    """Everything known of a sweep as a table, one row per point and arm."""
    rows = times.to_dataframe().reset_index()
    for column, label in reversed(labels.items()):
        rows.insert(0, column, label)
    return rows


def integers(axes: Axes, values: np.ndarray, log: bool = False) -> None:
    """Puts the ticks at the measured values."""
    if log:
        axes.set_xscale("log")
    axes.set_xticks(values, [str(int(value)) for value in values])
    axes.set_xticks([], minor=True)


def heading(figure: Figure, title: str, run: Run, spread: str = "span") -> None:
    """Writes the title, what was timed, where and how often; `spread` names the interval over rounds."""
    manifest = run.manifest_as(BenchManifest)
    settings, timed = manifest.settings, manifest.timed
    rounds = settings["repeats"]
    sliced = f"a slice of {manifest.preset}" if timed["is_slice"] else manifest.preset
    parts = [
        sliced, manifest.machine["device_name"], settings["dtype"],
        f"median and {spread} of {rounds} round{'s' * (rounds != 1)}", "random weights",
    ]  # fmt: skip
    style.write_above(figure, f"{title}\n{', '.join(parts)}")


def _varied_in(own: xr.Dataset) -> str:
    return next(str(dim) for dim in own.dims)
