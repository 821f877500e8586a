"""The layers of a dataset: their order, names and groups.

    depth = depth_of(dataset)
    depth.name(4)                        # "decoder layer 0"
    mean_of_part(values, 0, 2 / 3)       # over the first two thirds of the blocks

Layers keep the order of the file. Points called `encoder.…` and `decoder.…` are groups; the layer number
starts again in each.
"""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from framelens.analyses.places import even_places


@dataclass(frozen=True)
class Depth:
    """The layers of one dataset in order: block number (-1 = embedding) and group ('' when there is one)."""

    layers: list[int]
    groups: list[str]

    @property
    def positions(self) -> np.ndarray:
        """0, 1, 2, … one per layer: its place on an axis."""
        return np.arange(len(self.layers))

    @property
    def blocks(self) -> list[int]:
        """Positions of transformer blocks, without the embedding."""
        return [position for position, layer in enumerate(self.layers) if layer >= 0]

    def label(self, position: int | np.integer) -> str:
        """The label of a tick: `embed` or the block number."""
        layer = self.layers[position]
        return "embed" if layer < 0 else str(layer)

    def name(self, position: int) -> str:
        """The name in a sentence: `layer 3`, `decoder layer 3`, `the embedding`."""
        layer = self.layers[position]
        return f"{self.groups[position]} layer {layer}".strip() if layer >= 0 else "the embedding"

    def short(self, position: int) -> str:
        """The title of a small panel."""
        group, layer = self.groups[position], self.layers[position]
        return f"{group} {'embed' if layer < 0 else f'layer {layer}'}".strip()

    def pick(self, count: int) -> list[int]:
        """At most `count` positions, evenly spaced, first block and last always among them."""
        blocks = np.array(self.blocks)
        embedding = [p for p in self.positions[:1] if self.layers[p] < 0 and count > 2]
        even = even_places(len(blocks), count - len(embedding))
        return [int(p) for p in [*embedding, *blocks[even]]]

    def part(self, start: float, stop: float) -> list[int]:
        """Positions of the blocks between two shares of the depth, at least one."""
        blocks = self.blocks
        first = min(round(start * len(blocks)), len(blocks) - 1)
        return blocks[first : max(round(stop * len(blocks)), first + 1)]


def depth_of(dataset: xr.Dataset | xr.DataArray) -> Depth:
    """The layers of a dataset, from its coordinates `layer` and, where present, `point`."""
    layers = [int(layer) for layer in dataset["layer"].values]
    points = dataset["point"].values if "point" in dataset.coords else [""] * len(layers)
    return Depth(layers, [group_of(str(point)) for point in points])


def group_of(point: str) -> str:
    """`encoder` of `encoder.blocks.3.hook_resid_post`, '' of `blocks.3.hook_resid_post`."""
    for start in ("blocks.", "hook_embed"):
        if start in point:
            return point[: point.index(start)].rstrip(".")
    return ""


def mean_of_part(values: xr.DataArray, start: float, stop: float) -> xr.DataArray:
    """Mean over the blocks between two shares of the depth."""
    return values.isel(layer=depth_of(values).part(start, stop)).mean("layer")
