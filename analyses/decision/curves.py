"""Where a network could be cut, read from how much of the past's benefit is kept at each depth.

found = curves(datasets, Context(datasets["cut"]), layers=12)
found.cut(threshold=0.9)                 # encoder depth, and the layers that run at every step
sweep(found).sentence                    # the answer at other thresholds
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Bool

from framelens.analyses.decision.kept import MEASURES, Context, Value, depth_from, summary
from framelens.analyses.decision.words import percent

THRESHOLDS = (0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
"""Kept shares for which the split is computed."""
SERVES = 0.5
"""The kept share from which on fetching once serves: less, and the layers must fetch at every step."""


@dataclass(frozen=True)
class Cut:
    """A split of the layers, counted from 0."""

    encoder_layers: int
    head: list[int]
    tail: list[int]

    @property
    def decoder(self) -> list[int]:
        """The layers that run at every step."""
        return self.head + self.tail


@dataclass(frozen=True)
class Curves:
    """What the split is read from, each with a row per resample; None where a dataset is missing."""

    layers: int
    once: tuple[np.ndarray, dict[str, np.ndarray]] | None
    """Encoder depths, and the kept share by measure: the past is fetched once and cut after that depth."""
    live: tuple[np.ndarray, dict[str, np.ndarray]] | None
    """The same where it is fetched at every step."""
    work: tuple[np.ndarray, dict[str, np.ndarray]] | None
    """Layers, and shares of the past's benefit to the velocity: cut_only and left_out, which are kept, and
    own_work, which leaving the layer out costs at every step: all of it, but for its cross-frame part where
    fetching once serves for that (SERVES)."""

    def depth(self, threshold: float, curve: str = "once") -> np.ndarray | None:
        """The encoder depth of each resample; layers + 1 where no depth is enough."""
        measured = getattr(self, curve)
        if measured is None:
            return None
        depths, kept = measured
        return depth_from(np.minimum(*(kept[m] for m in MEASURES)), depths, threshold, self.layers + 1)

    def placed_depth(self, threshold: float) -> np.ndarray | None:
        """The depth from `once`, or where none is enough, from `live`."""
        once, live = self.depth(threshold), self.depth(threshold, "live")
        return once if once is None or live is None else np.where(once > self.layers, live, once)

    def cut(self, threshold: float) -> Cut | None:
        """The split that is deep enough, and complete enough, in 97.5 % of the resamples; None for none.

        None too where fetching once keeps nothing at that depth: such an encoder would have nothing to give.
        """
        placed = self.placed_depth(threshold)
        if placed is None:
            return None
        depth = int(np.ceil(summary(placed.astype(float)).most))
        return None if self.keeps_nothing(depth) else self.cut_at(depth, threshold)

    def kept_once(self, depth: int) -> Value | None:
        """What is kept where the past is fetched once by an encoder of that depth, of the worse measure; None
        where it was not measured."""
        if self.once is None or depth not in self.once[0]:
            return None
        place = int(np.flatnonzero(self.once[0] == depth)[0])
        return summary(np.minimum(*(self.once[1][measure][:, place] for measure in MEASURES)))

    def keeps_nothing(self, depth: int) -> bool:
        """Whether an encoder of that depth (or of the next measured one), run once, may give nothing."""
        deeper = [] if self.once is None else [int(at) for at in self.once[0] if at >= depth]
        kept = self.kept_once(min(deeper)) if deeper else None
        return kept is not None and not kept.least > 0

    def cut_at(self, depth: int, threshold: float) -> Cut | None:
        """The split at a given depth, complete enough in 97.5 % of the resamples; None for none."""
        if self.work is None:
            return None
        return self.place_cut(depth, summary(self.work[1]["own_work"]).most > 1 - threshold)

    def place_cut(
        self, depth: int, needed: Bool[np.ndarray, " layer"], known_only: bool = False
    ) -> Cut | None:
        """The split at that depth where those of the measured layers are needed at every step.

        Layers that were not measured count as needed too, unless `known_only`.
        """
        if not 1 <= depth <= self.layers or self.work is None:
            return None
        runs = np.full(self.layers, not known_only)
        runs[self.work[0]] = needed
        spare = np.flatnonzero(~runs)
        head, tail = (int(spare[0]), int(spare[-1]) + 1) if len(spare) else (self.layers, self.layers)
        tail = min(depth, tail, self.layers - (head == 0))
        return Cut(depth, list(range(min(head, tail))), list(range(tail, self.layers)))

    def decoder_layers(self, threshold: float, known_only: bool = False) -> np.ndarray | None:
        """How many layers run at every step, by resample; all of them where no split exists."""
        depth = self.placed_depth(threshold)
        if depth is None or self.work is None:
            return None
        needed = self.work[1]["own_work"] > 1 - threshold
        cuts = (self.place_cut(int(d), n, known_only) for d, n in zip(depth, needed, strict=True))
        return np.array([self.layers if cut is None else len(cut.decoder) for cut in cuts], float)


def curves(data: Mapping[str, xr.Dataset], context: Context | None, layers: int) -> Curves:
    """The curves that a run's datasets give."""
    once = live = work = None
    if context is not None:
        cut = data["cut"]
        beside = (cut.layer.values, _by_measure(context, cut, where="from"))
        # After the last layer nothing is cut.
        whole = {m: np.concatenate([kept, np.ones((len(kept), 1))], axis=1) for m, kept in beside[1].items()}
        live = (np.append(beside[0], layers), whole)
        if "reuse" in data and 0 in data["reuse"].start:
            reuse = data["reuse"]
            once = (reuse.layer.values + 1, _by_measure(context, reuse, kind="cross_only", start=0))
        if "leave_one_out" in data:
            both = np.intersect1d(cut.layer.values, data["leave_one_out"].layer.values)
            alone = context.kept_share("velocity", cut.sel(layer=both), where="only")
            out = context.kept_share("velocity", data["leave_one_out"].sel(layer=both))
            with np.errstate(invalid="ignore"):  # shares of no benefit are infinite
                own = (alone if _is_served(once, layers) else 1) - out
            work = (both, {"cut_only": alone, "left_out": out, "own_work": own})
    return Curves(layers, once, live, work)


def _is_served(once: tuple[np.ndarray, dict[str, np.ndarray]] | None, layers: int) -> bool:
    """Whether fetching once in all layers keeps SERVES of the benefit to the velocity, by the mean; True
    where it was not measured."""
    if once is None or layers not in once[0]:
        return True
    return bool(once[1]["velocity"][0, once[0] == layers] >= SERVES)


def _by_measure(context: Context, dataset: xr.Dataset, **where: Any) -> dict[str, np.ndarray]:
    return {measure: context.kept_share(measure, dataset, **where) for measure in MEASURES}


@dataclass(frozen=True)
class Sweep:
    """The encoder depth and the decoder at each threshold, and whether the threshold decides the depth."""

    thresholds: list[float]
    depths: list[Value | None]
    live: list[Value | None]
    decoders: list[list[int] | None]
    layers: int

    @property
    def found(self) -> list[int]:
        """The depths at those thresholds that any depth meets."""
        return [int(d.mean) for d in self.depths if d is not None and d.mean <= self.layers]

    @property
    def spread(self) -> int | None:
        """Layers between the least and the greatest answer."""
        return max(self.found) - min(self.found) if self.found else None

    @property
    def tracks_threshold(self) -> bool | None:
        """Whether the answers are as far apart as on a straight line from 0 at no layer to 1 at all layers.

        True also where only some thresholds have an answer.
        """
        if self.spread is None:
            return None
        line = (self.thresholds[-1] - self.thresholds[0]) * self.layers
        return len(self.found) < len(self.depths) or self.spread >= max(2, line)

    @property
    def sentence(self) -> str:
        """The same as text."""
        low, high = self.thresholds[0], self.thresholds[-1]
        if not self.found:
            return f"Fetched once, the past keeps {percent(low)} of its benefit at no depth of the encoder."
        least, most = min(self.found), max(self.found)
        depth = f"{least}" if least == most else f"{least} to {most}"
        if len(self.found) < len(self.depths):
            reached = self.thresholds[len(self.found) - 1]
            shares = percent(low) if reached == low else f"{100 * low:.0f} to {percent(reached)}"
            return (
                f"Fetched once, the past keeps {shares} of its benefit in an encoder of {depth} layers, "
                "and more at no depth: the answer depends on the threshold."
            )
        text = (
            f"To keep {100 * low:.0f} to {percent(high)} of the past's benefit takes an encoder of {depth} "
            "layers: "
        )
        if self.tracks_threshold:
            return f"{text}the answer just tracks the threshold; no depth is a clear place to cut."
        return f"{text}the answer does not depend on the threshold."


def sweep(curves: Curves) -> Sweep:
    """The answer at each of THRESHOLDS."""

    def depths(curve: str) -> list[Value | None]:
        found = [curves.depth(threshold, curve) for threshold in THRESHOLDS]
        return [None if rows is None else summary(rows.astype(float)) for rows in found]

    cuts = [curves.cut(threshold) for threshold in THRESHOLDS]
    decoders = [None if cut is None else cut.decoder for cut in cuts]
    return Sweep(list(THRESHOLDS), depths("once"), depths("live"), decoders, curves.layers)


def spans(layers: Iterable[int]) -> str:
    """`layers 0 to 3 and 9`."""
    ordered, runs = sorted(layers), []
    for layer in ordered:
        if runs and layer == runs[-1][1] + 1:
            runs[-1][1] = layer
        else:
            runs.append([layer, layer])
    if not ordered:
        return "no layer"
    named = [f"{first} to {last}" if last > first else f"{first}" for first, last in runs]
    return f"layer{'s' * (len(ordered) > 1)} {' and '.join(named)}"
