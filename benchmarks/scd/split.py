"""The split itself: how much faster it is than dense, measured and predicted.

dataset = compare_split(bench.own(), settings) # variables of QUANTITIES by arm
rows = split_rows(dataset)                     # measured, predicted, predicted over measured
print(split_text(rows, settings.preset, settings.repeats))
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from framelens.benchmarks import measure
from framelens.benchmarks.scd.arms import PLAIN
from framelens.benchmarks.scd.presets import Preset
from framelens.benchmarks.scd.sweeps import DENSE, BenchSettings

PREDICTED = {
    "operations": "by operations",
    "roofline": "by roofline",
    "plan": "the plan",
    "plan_clock": "the plan's clock",
}
QUANTITIES = {
    "speed_up": "frame time of the dense arm over this one's, median of rounds",
    "speed_up_low": "lower end of the 95 % interval of this median",
    "speed_up_high": "upper end of that interval",
    "speed_up_by_operations": "operations of the dense arm over this one's",
    "speed_up_by_roofline": "roofline time of the dense arm over this one's, at rates measured before",
    "speed_up_by_plan": "what the plan predicted, by operations",
    "speed_up_by_plan_clock": "what the plan predicted, by its measured rates",
}


def compare_split(own: xr.Dataset, settings: BenchSettings) -> xr.Dataset:
    """All arms at the preset's setting with their speed-ups, measured and predicted; NaN without a plan."""
    frame = own.sample_seconds + own.encode_seconds
    roofline = own.sample_roofline_seconds + own.encode_roofline_seconds
    ratios = (frame.sel(arm=DENSE) / frame).transpose("arm", "round").values
    ends = [measure.median_interval(list(row)) for row in ratios]
    said = [
        _predicted_speed_ups(settings, str(n), str(m))
        for n, m in zip(own.network.values, own["mode"].values, strict=True)
    ]
    values = {
        "speed_up": np.median(ratios, axis=1),
        "speed_up_low": [low for low, _ in ends],
        "speed_up_high": [high for _, high in ends],
        "speed_up_by_operations": (own.frame_flops.sel(arm=DENSE) / own.frame_flops).values,
        "speed_up_by_roofline": (roofline.sel(arm=DENSE) / roofline).values,
        "speed_up_by_plan": [speed_up for speed_up, _ in said],
        "speed_up_by_plan_clock": [clock for _, clock in said],
    }
    about = {name: {"units": "1", "long_name": QUANTITIES[name]} for name in values}
    layers = {
        "dense_layers": settings.preset.dense.layers,
        "encoder_layers": settings.preset.scd.encoder_layers,
    }
    return own.assign(
        {name: ("arm", np.asarray(v, float), about[name]) for name, v in values.items()}
    ).assign_attrs(layers)


def _predicted_speed_ups(settings: BenchSettings, network: str, mode: str) -> tuple[float, float]:
    """The plan's speed-ups of an arm: by operations, by its measured rates; NaN without a prediction."""
    said = settings.prediction
    if said is None or (network, mode) != (said.fusion, PLAIN):
        return np.nan, np.nan
    return said.speed_up, np.nan if said.clock_speed_up is None else said.clock_speed_up


def split_rows(dataset: xr.Dataset) -> list[dict[str, Any]]:
    """A row for each separated arm; missing predictions are None."""
    rows = []
    for arm in dataset.arm.values[dataset.network.values != DENSE]:
        own = dataset.sel(arm=arm)
        measured = {
            "median": float(own.speed_up),
            "low": float(own.speed_up_low),
            "high": float(own.speed_up_high),
        }
        said = {name: float(own[f"speed_up_by_{name}"]) for name in PREDICTED}
        predicted = {name: None if np.isnan(value) else value for name, value in said.items()}
        over = {name: value and value / measured["median"] for name, value in predicted.items()}
        reached = {name: value and measured["median"] / value for name, value in predicted.items()}
        own_row = {"arm": str(arm), "measured": measured, "predicted": predicted}
        rows.append(own_row | {"predicted_over_measured": over, "measured_over_predicted": reached})
    return rows


def split_text(rows: list[dict[str, Any]], preset: Preset, rounds: int) -> str:
    """The rows as a table."""
    ends = "[95 %]" if rounds >= measure.LEAST else "[min, max]"
    names = [name for name in PREDICTED if any(row["predicted"][name] is not None for row in rows)]
    head = f"{'speed-up':22}{f'measured {ends}':>21}" + "".join(f"{PREDICTED[name]:>24}" for name in names)
    text = [
        "",
        f"the split: {preset.layers}; {preset.steps} steps, {preset.history} frames of history, batch "
        f"{preset.batch}; in brackets the share of each prediction that is reached, measured over predicted",
        head,
    ]
    for row in rows:
        measured = "{median:.2f} [{low:.2f}, {high:.2f}]".format(**row["measured"])
        text.append(f"{row['arm']:22}{measured:>21}" + "".join(_cell(row, name) for name in names))
    return "\n".join(text)


def _cell(row: Mapping[str, Any], name: str) -> str:
    value = row["predicted"][name]
    text = "-" if value is None else f"{value:.2f} ({row['measured_over_predicted'][name]:.0%})"
    return text.rjust(24)
