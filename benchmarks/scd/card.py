"""The cost card: costs of a preset by arithmetic, before anything is timed.

dataset = card(preset, dtype="bfloat16")
print(card_text(preset, dataset))
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import xarray as xr

from framelens.benchmarks.scd.presets import ASKS, DENSE, FETCH_ONCE, Preset
from framelens.models.cost.operations import (
    VALUE_BYTES,
    Shape,
    cache_bytes,
    denoise_cost,
    encode_cost,
    frame_cost,
    parameters,
    predicted_speed_up,
    speed_up_bound,
)
from framelens.models.parts.fusion import FUSIONS

STEPS = (1, 2, 4, 8, 16, 25, 50, 100, 1000)
TOKENS = (0.25, 0.5, 1, 2, 4)
COSTS = {
    "parameters": ("1", "weights of the whole model"),
    "encode_flops": ("1", "operations of one encode, one branch"),
    "denoise_flops": ("1", "operations of one denoising step, one branch"),
    "frame_flops": ("1", "operations of a frame, all branches"),
    "encode_bytes": ("B", "weights, keys and values moved by one encode, one branch"),
    "denoise_bytes": ("B", "weights, keys and values moved by one denoising step, one branch"),
    "cache_bytes": ("B", "keys and values held, all branches"),
    "speed_up": ("1", "operations of dense over this arm's"),
    "bound": ("1", "limit of the speed-up for many steps"),
}
VARIED = {
    "steps": ("1", "denoising steps"),
    "history": ("frames", "frames of history"),
    "tokens": ("1", "tokens per frame"),
    "decoder_layers": ("layers", "layers of the decoder"),
}


def card(preset: Preset, dtype: str) -> xr.Dataset:
    """Costs of dense, fetch_once, every fusion, one that asks; speed-up and bound also by each of VARIED."""
    arms = [DENSE, FETCH_ONCE, *FUSIONS, ASKS]
    shapes = {arm: preset.shape(arm, value_bytes=VALUE_BYTES[dtype]) for arm in arms}
    rows = [_costs(shapes[arm], shapes[DENSE], preset) for arm in arms]
    variables: dict[str, Any] = {key: ("arm", [row[key] for row in rows]) for key in rows[0]}
    coords = {"arm": arms} | _values(preset)
    for varied, values in _values(preset).items():
        pairs = [[_speed_up(preset, arm, varied, value) for arm in arms] for value in values]
        for place, name in enumerate(("speed_up", "bound")):
            cells = [[pair[place] for pair in line] for line in pairs]
            variables[f"{name}_{varied}"] = ((varied, "arm"), cells)
    dataset = xr.Dataset(variables, coords)
    for name, (unit, words) in (COSTS | VARIED).items():
        dataset[name].attrs = {"units": unit, "long_name": words}
    return dataset.assign_attrs(
        steps=preset.steps, history=preset.history, batch=preset.batch, branches=preset.branches
    )


def _costs(shape: Shape, dense: Shape, preset: Preset) -> dict[str, float]:
    encode, step = encode_cost(shape, preset.history), denoise_cost(shape, preset.history)
    return {
        "parameters": parameters(shape),
        "encode_flops": encode.flops,
        "denoise_flops": step.flops,
        "frame_flops": frame_cost(shape, preset.steps, preset.history).flops,
        "encode_bytes": encode.bytes,
        "denoise_bytes": step.bytes,
        "cache_bytes": cache_bytes(shape, preset.history),
        "speed_up": predicted_speed_up(dense, shape, preset.steps, preset.history),
        "bound": speed_up_bound(dense, shape, preset.history),
    }


def _values(preset: Preset) -> dict[str, list[int]]:
    tokens = preset.shape(DENSE).tokens
    return {
        "steps": sorted({*STEPS, *preset.all_steps}),
        "history": sorted({*preset.histories, preset.history}),
        "tokens": sorted({max(1, round(share * tokens)) for share in TOKENS}),
        "decoder_layers": sorted({*preset.decoder_layers, preset.scd.decoder_layers}),
    }


def _speed_up(preset: Preset, arm: str, varied: str, value: int) -> tuple[float, float]:
    """Speed-up and bound of the arm if `varied` has that value."""
    at = {"steps": preset.steps, "history": preset.history} | {varied: value}
    dense, shape = preset.shape(DENSE), preset.shape(arm, at.get("decoder_layers"))
    if varied == "tokens":
        dense, shape = replace(dense, tokens=value), replace(shape, tokens=value)
    return predicted_speed_up(dense, shape, at["steps"], at["history"]), speed_up_bound(
        dense, shape, at["history"]
    )


def card_rows(dataset: xr.Dataset) -> dict[str, Any]:
    """The card as plain values: costs by arm, speed-up and bound by each varied quantity."""
    arms = [str(arm) for arm in dataset.arm.values]
    costs = {arm: {key: float(dataset[key].sel(arm=arm)) for key in COSTS} for arm in arms}
    for varied in VARIED:
        costs |= {
            f"by_{varied}": [
                {varied: int(value), "arm": arm}
                | {
                    name: float(dataset[f"{name}_{varied}"].sel({varied: value, "arm": arm}))
                    for name in ("speed_up", "bound")
                }
                for value in dataset[varied].values
                for arm in arms[1:]
            ]
        }
    return costs


def card_text(preset: Preset, dataset: xr.Dataset) -> str:
    """The card as tables."""
    guidance = "guidance in two branches" if preset.branches == 2 else "no guidance"
    text = [
        f"cost card of {preset.name}: {preset.what}; {preset.layers}",
        f"{preset.steps} steps, {preset.history} frames of history, batch {preset.batch}, {guidance}; a "
        "multiply-add counts as two; encode and denoise are one pass of one branch",
        "",
        f"{'':22}{'parameters':>11}{'encode':>22}{'denoise':>22}{'a frame':>10}{'KV cache':>10}"
        f"{'speed-up':>10}{'bound':>8}",
        f"{'':22}{'M':>11}{'GFLOP':>12}{'MB moved':>10}{'GFLOP':>12}{'MB moved':>10}{'GFLOP':>10}{'MB':>10}",
    ]
    for arm in dataset.arm.values:
        row = {key: float(dataset[key].sel(arm=arm)) for key in COSTS}
        text.append(
            f"{arm:22}{row['parameters'] / 1e6:11.2f}{row['encode_flops'] / 1e9:12.3f}"
            f"{row['encode_bytes'] / 1e6:10.1f}{row['denoise_flops'] / 1e9:12.3f}"
            f"{row['denoise_bytes'] / 1e6:10.1f}{row['frame_flops'] / 1e9:10.1f}"
            f"{row['cache_bytes'] / 1e6:10.1f}{row['speed_up']:10.2f}{row['bound']:8.2f}"
        )
    for varied, (_, words) in VARIED.items():
        text += ["", *_table(f"speed-up by {words}", dataset, varied)]
    return "\n".join(text)


def _table(title: str, dataset: xr.Dataset, varied: str) -> list[str]:
    def line(name: str, cell: Callable[[int], str]) -> str:
        return f"{name:34}" + "".join(cell(value).rjust(9) for value in dataset[varied].values)

    rows = [line(title, str)]
    for arm in dataset.arm.values[1:]:
        own = dataset[f"speed_up_{varied}"].sel(arm=arm)
        rows.append(line(f"  {arm}", lambda value, own=own: f"{float(own.sel({varied: value})):.2f}"))
    return rows
