"""The numbers of a figure, as rows of a table and as words."""

import pandas as pd
import xarray as xr

from framelens.analyses.intervals import spell_interval


def tidy(values: xr.Dataset, **labels: str) -> pd.DataFrame:
    """A table with one row per value; every row starts with the same labels."""
    table = values.to_dataframe().reset_index()
    for column, label in reversed(labels.items()):
        table.insert(0, column, label)
    return table


def spell(row: pd.Series | xr.Dataset, digits: int = 2) -> str:
    """`0.83 [0.80, 0.86]`, or `0.83` without an interval."""
    mean, low, high = (float(row[name]) for name in ("mean", "low", "high"))
    return spell_interval(mean, low, high, digits)
