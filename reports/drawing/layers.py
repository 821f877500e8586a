"""Layers on an axis: their order, names, ticks and groups.

    depth = depth_of(dataset)
    axes.plot(depth.positions, values)
    mark(axes, depth)

Layers keep the order of the file. Points called `encoder.…` and `decoder.…`
are groups side by side on one axis; the layer number starts again in each.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes

TICKS = 9


@dataclass(frozen=True)
class Depth:
    """The layers of one dataset in order: block number (-1 = embedding) and group ('' when there is one)."""

    layers: list[int]
    groups: list[str]

    @property
    def positions(self) -> np.ndarray:
        """0, 1, 2, … one per layer: where it is drawn."""
        return np.arange(len(self.layers))

    @property
    def blocks(self) -> list[int]:
        """Positions of transformer blocks, without the embedding."""
        return [position for position, layer in enumerate(self.layers) if layer >= 0]

    def label(self, position: int | np.integer) -> str:
        """What a tick says: `embed` or the block number."""
        layer = self.layers[position]
        return "embed" if layer < 0 else str(layer)

    def name(self, position: int) -> str:
        """What a sentence says: `layer 3`, `decoder layer 3`, `the embedding`."""
        layer = self.layers[position]
        return f"{self.groups[position]} layer {layer}".strip() if layer >= 0 else "the embedding"

    def short(self, position: int) -> str:
        """What a small panel's title says."""
        group, layer = self.groups[position], self.layers[position]
        return f"{group} {'embed' if layer < 0 else f'layer {layer}'}".strip()

    def pick(self, count: int) -> list[int]:
        """At most `count` positions, evenly spaced, first block and last always among them."""
        blocks = np.array(self.blocks)
        embedding = [p for p in self.positions[:1] if self.layers[p] < 0 and count > 2]
        even = np.linspace(0, len(blocks) - 1, min(count - len(embedding), len(blocks))).round().astype(int)
        return [int(p) for p in [*embedding, *blocks[np.unique(even)]]]


def depth_of(dataset: xr.Dataset | xr.DataArray) -> Depth:
    """The layers of a dataset, from its coordinates `layer` and, where present, `point`."""
    layers = [int(layer) for layer in dataset["layer"].values]
    points = dataset["point"].values if "point" in dataset.coords else [""] * len(layers)
    return Depth(layers, [_group(str(point)) for point in points])


def mark(axes: Axes, depth: Depth, along: str = "x", label: str = "layer", ticks: int = TICKS) -> None:
    """Layer ticks on an axis, few enough to read, and a line between groups."""
    stride = max(1, -(-len(depth.blocks) // ticks))
    shown = [p for p in depth.positions if depth.layers[p] < 0 or depth.layers[p] % stride == 0]
    if stride > 1:  # the word "embed" needs the room of its neighbour
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
    """What a sentence says of a table's row that has `layer` and, where there are groups, `point`."""
    return Depth([int(row["layer"])], [_group(str(row.get("point", "")))]).name(0)


def _group(point: str) -> str:
    """`encoder` of `encoder.blocks.3.hook_resid_post`, '' of `blocks.3.hook_resid_post`."""
    for start in ("blocks.", "hook_embed"):
        if start in point:
            return point[: point.index(start)].rstrip(".")
    return ""
