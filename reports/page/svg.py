"""A small line chart by layer, as SVG, and its points for the page's script.

chart = Chart(["0", "1"], ["0", "1"], [Curve("trained", "trained", values), ...], ...)
chart.svg("Cut: ...")         # the picture
chart.points()                # {"x": [...], "text": [...], "keys": [...]}: the text at each layer
"""

from dataclasses import dataclass

import numpy as np
import xarray as xr
from matplotlib.ticker import LogLocator, MaxNLocator

from framelens.reports.drawing.tables import spell
from framelens.reports.page.markup import Html, fill, join

WIDTH, HEIGHT = 240, 160
LEFT, RIGHT, TOP, BOTTOM = 34, 8, 8, 32
POINTS_UP_TO = 16


@dataclass(frozen=True)
class Curve:
    """Mean, low and high by layer; `role` is its look: trained, second, null or level."""

    label: str
    role: str
    values: xr.Dataset


@dataclass(frozen=True)
class Chart:
    """Curves over the same layers."""

    layers: list[str]
    keys: list[str]
    """The name of each layer in a link."""
    curves: list[Curve]
    is_log: bool = False
    threshold: float | None = None
    """The threshold, a dotted level."""
    split: float | None = None
    """Where the encoder ends, in positions of layers."""
    floor: float | None = None
    """Lower values are drawn at the lower edge."""

    def svg(self, label: str) -> Html:
        """The picture as SVG; `label` is its text for readers who cannot see it."""
        parts = [
            fill('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">', WIDTH, HEIGHT, label),
            *self._axes(),
            *(part for curve in self.curves for part in self._draw(curve)),
            fill(
                '<line class="cursor" x1="0" x2="0" y1="{}" y2="{}" visibility="hidden"/>',
                TOP,
                HEIGHT - BOTTOM,
            ),
            fill("</svg>"),
        ]
        return join(parts)

    def points(self) -> dict[str, list]:
        """The place of each layer (in units of the picture) and its measured values as text."""
        names = [name if name[0].isalpha() else f"layer {name}" for name in self.layers]
        texts = []
        for place, name in enumerate(names):
            here = [(curve.label, curve.values.isel(layer=place)) for curve in self.curves]
            values = [f"{label} {spell(value)}" for label, value in here if value["mean"].notnull()]
            texts.append(f"{name.capitalize()}: {'; '.join(values) or 'not measured'}")
        x = [self._x(place) for place in range(len(self.layers))]
        return {"x": x, "text": texts, "keys": self.keys}

    def _axes(self) -> list[Html]:
        low, high = self._range()
        bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
        parts = []
        for tick in _ticks(low, high, self.is_log):
            y = self._y(tick)
            parts.append(_line("grid", LEFT, right, y, y))
            parts.append(_text(LEFT - 4, y + 3.5, "end", f"{tick:g}"))
        if self.threshold is not None and low <= self.threshold <= high:
            y = self._y(self.threshold)
            parts.append(_line("threshold", LEFT, right, y, y))
        if self.split is not None:
            x = self._x(self.split)
            parts.append(_line("split", x, x, TOP, bottom))
        stride = -(-len(self.layers) // (7 if len(max(self.layers, key=len)) < 3 else 3))
        for place in range(0, len(self.layers), stride):
            parts.append(_text(self._x(place), bottom + 12, "middle", self.layers[place]))
        is_cut_off = self.floor is not None and self._lowest() < self.floor
        below = "layer (lower values are at the edge)" if is_cut_off else "layer"
        parts += [
            _text((LEFT + right) / 2, HEIGHT - 5, "middle", below),
            _line("axis", LEFT, right, bottom, bottom),
        ]
        return parts

    def _draw(self, curve: Curve) -> list[Html]:
        mean, low, high = (np.asarray(curve.values[name], float) for name in ("mean", "low", "high"))
        parts = []
        for run in _stretches(np.isfinite(low) & np.isfinite(high) & self._can(low)):
            edge = [self._at(place, high) for place in run] + [self._at(place, low) for place in run[::-1]]
            parts.append(fill('<polygon class="band {}" points="{}"/>', curve.role, " ".join(edge)))
        for run in _stretches(np.isfinite(mean) & self._can(mean)):
            points = [self._at(place, mean) for place in run]
            parts.append(fill('<polyline class="line {}" points="{}"/>', curve.role, " ".join(points)))
            if len(self.layers) <= POINTS_UP_TO and curve.role != "level":
                circles = (point.split(",") for point in points)
                parts += [
                    fill('<circle class="{}" cx="{}" cy="{}" r="2"/>', curve.role, x, y) for x, y in circles
                ]
        return parts

    def _can(self, values: np.ndarray) -> np.ndarray:
        return values > 0 if self.is_log else np.ones(len(values), bool)

    def _lowest(self) -> float:
        return min(float(curve.values["mean"].min()) for curve in self.curves)

    def _range(self) -> tuple[float, float]:
        names = ("mean", "low", "high")
        values = np.concatenate([np.asarray(c.values[name], float) for c in self.curves for name in names])
        values = values[np.isfinite(values) & self._can(values)]
        if self.is_log:
            return min(0.8, float(values.min()) / 1.1), max(2.0, float(values.max()) * 1.2)
        low, high = min(0.0, float(values.min())), max(float(values.max()), 0.05)
        low = low if self.floor is None else max(low, self.floor)
        room = 0.05 * (high - low)
        return low - (room if low < 0 else 0), high + room

    def _at(self, place: int, values: np.ndarray) -> str:
        return f"{self._x(place)},{self._y(float(values[place]))}"

    def _x(self, place: int | float) -> float:
        count = len(self.layers)
        inner = WIDTH - LEFT - RIGHT
        return round(LEFT + inner * (place + 0.5) / count, 1)

    def _y(self, value: float) -> float:
        low, high = self._range()
        value = max(value, low)
        if self.is_log:
            low, high, value = np.log(low), np.log(high), np.log(value)
        return round(float(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - low) / (high - low)), 1)


def _line(kind: str, x1: float, x2: float, y1: float, y2: float) -> Html:
    return fill('<line class="{}" x1="{}" x2="{}" y1="{}" y2="{}"/>', kind, x1, x2, y1, y2)


def _text(x: float, y: float, anchor: str, words: str) -> Html:
    return fill('<text x="{}" y="{}" text-anchor="{}">{}</text>', x, y, anchor, words)


def _ticks(low: float, high: float, is_log: bool) -> list[float]:
    found = LogLocator(subs=(1.0, 3.0) if high / low < 30 else (1.0,)) if is_log else MaxNLocator(4)
    return [float(tick) for tick in found.tick_values(low, high) if low <= tick <= high]


def _stretches(present: np.ndarray) -> list[list[int]]:
    """Runs of neighbouring places that have a value."""
    places = np.flatnonzero(present)
    return [run.tolist() for run in np.split(places, np.flatnonzero(np.diff(places) > 1) + 1) if len(run)]
