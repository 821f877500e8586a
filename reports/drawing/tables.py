"""The numbers of a figure, as rows of a table and as words."""

import numpy as np
import pandas as pd
import xarray as xr


def tidy(values: xr.Dataset, **labels: str) -> pd.DataFrame:
    """A table with one row per value; every row starts with the same labels."""
    table = values.to_dataframe().reset_index()
    for column, label in reversed(labels.items()):
        table.insert(0, column, label)
    return table


def spell(row: pd.Series | xr.Dataset, digits: int = 2) -> str:
    """`0.83 [0.80, 0.86]`, or `0.83` without an interval."""
    mean, low, high = (float(row[name]) for name in ("mean", "low", "high"))
    interval = "" if np.isnan(low) else f" [{low:z.{digits}f}, {high:z.{digits}f}]"
    return f"{mean:z.{digits}f}{interval}"
