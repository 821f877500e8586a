"""Layers on an axis: ticks, names and a line between groups.

    depth = depth_of(dataset)
    axes.plot(depth.positions, values)
    mark(axes, depth)

Groups, as encoder and decoder, are side by side on one axis.
"""

import pandas as pd
from matplotlib.axes import Axes

from framelens.analyses.depth import Depth, group_of

TICKS = 9


def mark(axes: Axes, depth: Depth, along: str = "x", label: str = "layer", ticks: int = TICKS) -> None:
    """Puts layer ticks on an axis, few enough to read, and a line between groups."""
    stride = max(1, -(-len(depth.blocks) // ticks))
    shown = [p for p in depth.positions if depth.layers[p] < 0 or depth.layers[p] % stride == 0]
    if stride > 1:  # the word "embed" takes the room of its neighbour
        shown = [p for p in shown if p == 0 or depth.layers[p - 1] >= 0]
    axis = axes.xaxis if along == "x" else axes.yaxis
    axis.set_ticks(shown, [depth.label(p) for p in shown])
    (axes.set_xlabel if along == "x" else axes.set_ylabel)(label)
    if along == "y" and any(depth.groups):
        axes.set_ylabel(f"{label} ({', then '.join(dict.fromkeys(depth.groups))}, upwards)")
    edges = [p for p in depth.positions[1:] if depth.groups[p] != depth.groups[p - 1]]
    for edge in edges:
        (axes.axvline if along == "x" else axes.axhline)(edge - 0.5, color="0.4", linewidth=0.8)
    if along == "x" and edges:
        for start in [0, *edges]:
            axes.text(start - 0.4, 1.0, depth.groups[start], transform=axes.get_xaxis_transform(),
                      fontsize="x-small", va="bottom", color="0.3")  # fmt: skip


def place(row: pd.Series) -> str:
    """The layer of a table's row in words; the row has `layer` and, where there are groups, `point`."""
    return Depth([int(row["layer"])], [group_of(str(row.get("point", "")))]).name(0)
