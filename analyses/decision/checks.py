"""The questions of analyses/decision/questions.py put to a run's datasets.

A check whose data are missing, NaN, or of too few clips is open, and says why.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import xarray as xr

from framelens.analyses.decision.curves import Curves
from framelens.analyses.decision.kept import MEASURES, Context, Value, error, summary
from framelens.analyses.decision.outcomes import control_outcomes
from framelens.analyses.decision.questions import ASKED, CORE, THRESHOLD, Check

SPELLED = {"velocity": "velocity", "frame": "drawn frame"}


def checks(data: Mapping[str, xr.Dataset], curves: Curves, context: Context | None) -> list[Check]:
    """Every question of ASKED, in its order, put to a run's datasets."""
    return _Checks(data, curves, context).all()


class _Checks:
    def __init__(self, data: Mapping[str, xr.Dataset], curves: Curves, context: Context | None):
        self.data, self.curves, self.context = data, curves, context
        self.layers = curves.layers
        cut = curves.cut(THRESHOLD)
        self.depth = None if cut is None else cut.encoder_layers

    def all(self) -> list[Check]:
        found = {name: getattr(self, f"_{name}")() for name in ASKED}
        if found["uses_past"].is_measured and self.context is not None and not self.context.has_benefit():
            why = "Not asked: the past brings no clear benefit of which a share could be kept."
            found |= {name: self._open(name, why) for name in ("own_past", *CORE)}
        return list(found.values())

    def _check(
        self, name: str, measured: str, value: Value, passed: bool | None = None, beside: str = ""
    ) -> Check:
        question, threshold, side, asked, because, failing = ASKED[name]
        threshold, asked = threshold or self.layers, asked.format(layers=self.layers)
        numbers = (float(value.mean), float(value.low), float(value.high), threshold)
        return Check(name, question, measured, beside, *numbers, side, asked, because, failing, passed)

    def _open(self, name: str, why: str, value: float = np.nan) -> Check:
        return self._check(name, why, Value(value, np.nan, np.nan))

    def _missing(self, name: str, *datasets: str) -> Check | None:
        missing = [dataset for dataset in datasets if dataset not in self.data]
        if missing:
            return self._open(name, f"This run did not measure {' and '.join(missing)}.")
        if self.context is None:
            first = int(self.data["cut"].layer.min()) if "cut" in self.data else None
            why = (
                "This run did not measure cut." if first is None else f"Cuts begin with layer {first}, not 0."
            )
            return self._open(name, why)
        return None

    def _answered(
        self, name: str, rows: np.ndarray, text: str, spell: Callable[[Value], str], beside: str = ""
    ) -> Check:
        """`text` with {} for the value; rows are its resamples, row 0 the mean."""
        found = self._check(name, "", summary(rows), beside=beside)
        if not found.is_measured:
            return self._open(name, "It does not apply here: what was measured is not a number.")
        sign = 1 if found.side == "above" else -1
        worst, best = (found.low, found.high)[::sign]
        passed = None
        if sign * worst > sign * found.threshold:
            passed = True
        elif sign * best <= sign * found.threshold:
            passed = False
        measured = text.format(spell(summary(rows)))
        if np.isnan(found.low):
            clips = 0 if self.context is None else self.context.clips
            measured += f" {clips} clips are too few for an interval: probe at least 5."
        elif passed is None:
            measured += f" Asked for: {found.asked}; the interval lies on both sides of that, so undecided."
        return replace(found, measured=measured, passed=passed)

    def _controls(self) -> Check:
        if "controls" not in self.data:
            return self._open("controls", "This run did not measure controls.")
        controls = self.data["controls"]
        outcomes = control_outcomes(controls)
        applying = sum(passed is not None for passed in outcomes.values())
        failed = [
            f"{name} (effect {float(controls.effect.sel(control=name).mean()):.2g})"
            for name, passed in outcomes.items()
            if passed is False
        ]
        share = 1 - len(failed) / max(1, applying)
        text = f"Failed: {', '.join(failed)}." if failed else f"All {applying} controls passed."
        return self._check("controls", text, Value(share, share, share), not failed if applying else None)

    def _predicts(self) -> Check:
        if missing := self._missing("predicts", "cut"):
            return missing
        assert self.context is not None
        cut = self.data["cut"]
        if "random" not in cut.get("network", []):
            return self._open("predicts", "This run did not measure a network with random weights.")
        random = self.context.rows(error(cut, "velocity", prefix="plain_", network="random"))
        ratio = self.context.plain["velocity"] / random
        text = "Its velocity error is {} of that with its weights in random order."
        return self._answered("predicts", ratio, text, shared)

    def _uses_past(self) -> Check:
        if missing := self._missing("uses_past", "cut"):
            return missing
        assert self.context is not None
        rows = {measure: self.context.benefit(measure) for measure in MEASURES}
        text = "Seeing the past removes {} of the error that remains when each frame sees only itself."
        beside = f"{_each(rows)}; the smaller counts."
        return self._answered("uses_past", np.minimum(*rows.values()), text, shared, beside)

    def _own_past(self) -> Check:
        if missing := self._missing("own_past", "reuse_controls"):
            return missing
        assert self.context is not None
        controls, last = self.data["reuse_controls"], self.layers - 1
        if last not in controls.layer:
            return self._open("own_past", f"Reuse in all layers was not measured: layer {last} is missing.")
        place = {"source": "other_clip", "kind": "cross", "layer": last}
        rows = {m: self.context.kept(m, controls, **place) for m in MEASURES}
        beside = f"{_each(rows)}; the larger counts. Below 0: worse than no past."
        text = "Another clip's past gives {} of the benefit."
        return self._answered("own_past", np.maximum(*rows.values()), text, shared, beside)

    def _once(self) -> Check:
        if missing := self._missing("once", "reuse"):
            return missing
        assert self.context is not None
        reuse, last = self.data["reuse"], self.layers - 1
        if last not in reuse.layer or 0 not in reuse.start:
            return self._open("once", f"Reuse from step 0 in all layers, to layer {last}, was not measured.")
        rows = {m: self.context.kept(m, reuse, kind="cross", layer=last, start=0) for m in MEASURES}
        text = "Fetched once, at the first step, the past keeps {} of its benefit."
        beside = f"{_each(rows)}; the smaller counts."
        return self._answered("once", np.minimum(*rows.values()), text, shared, beside)

    def _depth(self) -> Check:
        if missing := self._missing("depth", "cut"):
            return missing
        rows = self.curves.depth(THRESHOLD, "live")
        assert rows is not None
        text = f"It is enough that the first {{}} of {self.layers} layers see the past."
        return self._answered("depth", rows.astype(float), text, counted)

    def _decoder(self) -> Check:
        if missing := self._missing("decoder", "leave_one_out", "reuse"):
            return missing
        rows, known = (self.curves.decoder_layers(THRESHOLD, known_only) for known_only in (False, True))
        if rows is None or known is None:
            return self._open("decoder", "Reuse from step 0 was not measured.")
        text = f"{{}} of {self.layers} layers have to run at every step."
        found = self._answered("decoder", rows, text, counted)
        is_coarse = self.curves.work is not None and len(self.curves.work[0]) < self.layers
        if is_coarse and found.passed is not True and summary(known).mean < self.layers:
            text = "Too few layers were measured to tell which have to run at every step."
            return self._open("decoder", text, found.value)
        return found

    def _invariant(self) -> Check:
        if missing := self._missing("invariant", "noise_invariance"):
            return missing
        depth = self._place("invariant")
        if isinstance(depth, Check):
            return depth
        assert self.context is not None
        stored = self.data["noise_invariance"]
        own = stored.isel(sigma=int(np.argmax(stored.sigma.values)))
        own = own.sel(layer=depth - 1, network="trained", drop=True)
        gain, cosine = (
            self.context.rows(values.mean("frame", skipna=False))
            for values in (own.centred_cosine - own.other_context, own.centred_cosine)
        )
        text = "Features of two noise draws are more alike by {} where both see their own past."
        beside = f"Centred cosine behind layer {depth - 1}: {spelled(summary(cosine))}."
        return self._answered("invariant", gain, text, spelled, beside)

    def _sharp(self) -> Check:
        if missing := self._missing("sharp", "reuse"):
            return missing
        depth = self._place("sharp")
        if isinstance(depth, Check):
            return depth
        assert self.context is not None
        reuse = self.data["reuse"]
        served = reuse.sharpness.sel(kind="cross_only", layer=depth - 1, start=0)
        ratio = self.context.rows(served) / self.context.rows(reuse.plain_sharpness)
        return self._answered(
            "sharp", ratio, "The frame has {} of the whole model's gradient energy.", shared
        )

    def _place(self, name: str) -> int | Check:
        if self.depth is None:
            return self._open(name, "There is no encoder to ask it of.")
        return self.depth


def _each(rows: dict[str, np.ndarray]) -> str:
    """Each measure's own value."""
    text = ", ".join(f"{SPELLED[measure]} {shared(summary(each))}" for measure, each in rows.items())
    return text[:1].upper() + text[1:]


def spelled(value: Value, digits: int = 2, scale: float = 1, unit: str = "") -> str:
    """`0.83 [0.80, 0.86]`, or `0.83` where there is no interval."""
    low, high = (f"{scale * end:z.{digits}f}" for end in (value.low, value.high))
    interval = "" if np.isnan(value.low) else f" [{low}, {high}]"
    return f"{scale * value.mean:z.{digits}f}{unit}{interval}"


def shared(value: Value) -> str:
    """`83 % [80, 86]`."""
    return spelled(value, 0, 100, " %")


def counted(value: Value) -> str:
    """`6 [6, 7]`."""
    return spelled(value, 0)
