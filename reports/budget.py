"""The comparison of trainings at an equal budget as a table.

Budgets: equal steps, and equal time, in units of dense steps: what a step costs was measured with all
networks interleaved, so the unit does not depend on the load of the machine.
"""

import numpy as np
import pandas as pd
import xarray as xr

from framelens.analyses.intervals import mean_interval, spell_interval
from framelens.reports.runs import Run

COLUMNS = {
    "parameters": "parameters",
    "cost": "cost of a step (dense = 1)",
    "loss": "loss, equal steps",
    "loss_time": "loss, equal time",
    "psnr": "next frame PSNR (dB)",
    "gain": "the same minus dense, clip by clip (dB)",
    "ssim": "next frame SSIM",
    "rollout": "free run, last frame PSNR (dB)",
    "state": "free run, last frame state error",
}


def costs(result: xr.Dataset) -> xr.DataArray:
    """What a step of each arm costs, in steps of the first (arm, round)."""
    return result.step_seconds / result.step_seconds.isel(arm=0)


def losses(result: xr.Dataset) -> xr.DataArray:
    """Validation loss, mean over noise levels (arm, seed, checkpoint)."""
    return result.loss.mean("sigma")


def at_equal_time(result: xr.Dataset) -> xr.DataArray:
    """Loss of every arm and seed when the arm whose training was cheapest ended (arm, seed)."""
    cost, loss = costs(result).median("round"), losses(result)
    budget = float(cost.min()) * int(result.checkpoint[-1])
    values = [
        [np.exp(np.interp(budget / float(cost[a]), result.checkpoint, np.log(loss[a, s])))
         for s in range(result.sizes["seed"])]
        for a in range(result.sizes["arm"])
    ]  # fmt: skip
    return xr.DataArray(values, dims=("arm", "seed"))


def table(run: Run) -> pd.DataFrame:
    """One row per arm: mean over seeds and clips; `_low` and `_high` are 95 % intervals over clips."""
    result = run.read("compare")
    cost, equal_time, final = costs(result).median("round"), at_equal_time(result), losses(result)[..., -1]
    rows = []
    for index, arm in enumerate(result.arm.values):
        own = result.sel(arm=arm)
        row = {
            "arm": str(arm),
            "parameters": int(own.parameters.isel(seed=0)),
            "cost": float(cost[index]),
            "loss": float(final[index].mean()),
            "loss_time": float(equal_time[index].mean()),
        }
        last = {"sampling": "free_running", "frame": int(result.frame[-1])}
        scores = {"psnr": own.psnr.sel(sampling="teacher_forced").mean("frame")}
        scores["gain"] = scores["psnr"] - result.isel(arm=0).psnr.sel(sampling="teacher_forced").mean("frame")
        scores["ssim"] = own.ssim.sel(sampling="teacher_forced").mean("frame")
        scores["rollout"] = own.psnr.sel(last)
        if "state_error" in own:
            scores["state"] = own.state_error.sel(last)
        for name, values in scores.items():
            mean, low, high = mean_interval(values.mean("seed").values)
            row |= {name: float(mean), f"{name}_low": float(low), f"{name}_high": float(high)}
        rows.append(row)
    return pd.DataFrame(rows)


def markdown(frame: pd.DataFrame) -> str:
    """The table for a README."""
    columns = [name for name in COLUMNS if name in frame]
    lines = ["| network | " + " | ".join(COLUMNS[name] for name in columns) + " |"]
    lines.append("|---" * (len(columns) + 1) + "|")
    for _, row in frame.iterrows():
        lines.append(f"| {row['arm']} | " + " | ".join(_cell(row, name) for name in columns) + " |")
    return "\n".join(lines)


def _cell(row: pd.Series, name: str) -> str:
    if name == "parameters":
        return f"{row[name] / 1e6:.3f} M"
    digits = {
        "cost": 2,
        "loss": 4,
        "loss_time": 4,
        "psnr": 1,
        "gain": 2,
        "ssim": 3,
        "rollout": 1,
        "state": 2,
    }[name]
    return spell_interval(row[name], row.get(f"{name}_low"), row.get(f"{name}_high"), digits)
