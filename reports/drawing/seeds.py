"""Curves of several trainings of one network: their mean, and each of them."""

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes


def draw_seeds(axes: Axes, x: np.ndarray, values: xr.DataArray, label: str, **look: Any) -> np.ndarray:
    """Draws the mean over seeds of (seed, checkpoint), and single seeds as thin lines; returns the mean.

    The first checkpoint, before any training, is left out.
    """
    for single in values.values if values.sizes["seed"] > 1 else []:
        axes.plot(x[1:], single[1:], **look | {"linewidth": 0.5, "alpha": 0.5, "marker": ""})
    mean = values.mean("seed").values
    axes.plot(x[1:], mean[1:], label=label, **look)
    return mean
