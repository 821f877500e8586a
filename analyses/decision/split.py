"""Whether a dense causal diffuser can be separated into an encoder and a decoder, and where.

    answer = split(datasets, layers=12)      # {"cut": ..., "reuse": ..., ...}, datasets of one run
    answer.verdict, answer.reason, answer.tests, answer.cut, answer.remarks

The encoder's depth is the smallest from which on cross-frame attention, computed once at sigma 1 in the
layers before it and cut after it, keeps THRESHOLD of the benefit of the past. The decoder's layers are those
after it, and those at either end whose work at every step is needed (Bai et al. 2026: the first
and the last five layers of a fine-tuned network).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr

from framelens.analyses.decision.curves import Curves, Cut, Sweep, sweep
from framelens.analyses.decision.engine import Answer, answers
from framelens.analyses.decision.evidence import SplitEvidence
from framelens.analyses.decision.kept import THRESHOLD, mean_of, summary
from framelens.analyses.decision.late import describe_late
from framelens.analyses.decision.repeated_features import TOKEN_COSINE
from framelens.analyses.decision.verdict import QUESTIONS, verdict
from framelens.analyses.decision.words import percent, spell
from framelens.analyses.intervals import enough
from framelens.analyses.sample import Sample
from framelens.analyses.scales import MeasureScale, scale_of

DATASETS = ("controls", "cut", "reuse", "reuse_controls", "leave_one_out", "noise_invariance")
"""The datasets that decide."""
NEWER = ("other_past",)
"""The datasets that decide in place of one of these where a run has them."""
SUPPORTING = ("step_similarity", "frame_attention")
"""The datasets of remarks only: similarity and attention mass are not evidence of use."""


@dataclass(frozen=True)
class Split:
    """The answer and everything that it was computed from."""

    verdict: str
    """separable, partly separable, not separable or open."""
    reason: str
    tests: list[Answer]
    remarks: list[str]
    would_decide: str
    """What to do where the verdict is open; empty otherwise."""
    cut: Cut | None
    """Where to cut; provisional where the verdict is open. None where no depth is enough or was measured,
    where fetching once keeps nothing, where the model is not separable, and where a condition was measured
    and did not pass."""
    curves: Curves
    sweep: Sweep | None
    """None where the benefit of the past is too small to compute a kept share, or a control failed."""
    sample: Sample


def split(data: Mapping[str, xr.Dataset], layers: int) -> Split:
    """The answer for a network in which `layers` layers denoise; missing datasets leave tests open.

    ValueError for a run whose layers do not fit.
    """
    for name in DATASETS:
        last = int(data[name].layer.max()) if name in data and "layer" in data[name].dims else 0
        if last >= layers:
            raise ValueError(
                f"{name} has a layer {last}, the model denoises in layers 0 to {layers - 1}; give a run of it"
            )
    evidence = SplitEvidence(data, layers)
    found, context, sample = evidence.curves, evidence.maybe_context, evidence.sample
    tests = answers(QUESTIONS, evidence)
    answer = verdict(tests)
    by_name = {test.name: test for test in tests}
    is_readable = by_name["controls"].passed is not False and context is not None and context.has_benefit()
    unmet = [test for test in tests if _is_condition(test) and test.is_measured and not test.passed]
    is_placed = is_readable and not unmet and answer != "not separable"
    cut = found.cut(THRESHOLD) if is_placed else None
    thresholds = sweep(found) if is_readable else None
    sentences = [] if thresholds is None else [thresholds.sentence]
    late = describe_late(evidence) if is_placed else ""
    reason, decides = _reason(answer, by_name, cut, layers, sample), _would_decide(answer, by_name, sample)
    remarks = [*filter(None, [sample.note]), *sentences, *_remarks(data, found, cut)]
    return Split(answer, f"{reason} {late}".strip(), tests, remarks, decides, cut, found, thresholds, sample)


def _reason(answer: str, tests: dict[str, Answer], cut: Cut | None, layers: int, sample: Sample) -> str:
    """A few sentences under the verdict."""
    failed = [test for test in tests.values() if test.passed is False]
    if answer == "open" and sample.clips and not enough(sample.count):
        few = f"{sample.units} are too few for an interval"
        return f"Not decided: {few}; probe at least 5 ({_more(sample, 8)})."
    if answer == "open":
        controls = tests["controls"]
        undecided = [test for test in tests.values() if test.passed is None]
        first = controls if controls.passed is False or not undecided else undecided[0]
        return f"Not decided: {first.measured[0].lower()}{first.measured[1:]}"
    if answer == "not separable":
        conditions = [test for test in failed if _is_condition(test) and test.name != "controls"]
        return f"Not separable: {_failing(conditions[:1] or failed)}"
    where = "" if cut is None else _describe_cut(cut, layers)
    if answer == "separable":
        return f"{tests['uses_past'].measured} {tests['once'].measured} {where}"
    yes = "the past can be fetched once" if tests["once"].passed else "the last layers do not need the past"
    return f"Partly separable: {yes}, but {_failing(failed)} {where}".strip()


def _is_condition(test: Answer) -> bool:
    return test.question.kind == "condition"


def _failing(tests: list[Answer]) -> str:
    return f"{', and '.join(test.question.failing for test in tests)}. {tests[0].measured}"


def _more(sample: Sample, clips: int) -> str:
    """The option that gives more clips, or where all films were probed, more films."""
    return f"--clips {clips}" if sample.count == sample.clips else "--videos, a folder of more films"


def _would_decide(answer: str, tests: dict[str, Answer], sample: Sample) -> str:
    """What to do next where the verdict is open, in one or two sentences."""
    if answer != "open":
        return ""
    if tests["controls"].passed is False:
        return "To decide: find out why a control failed (make check MODEL=...), then probe again."
    if sample.clips and not enough(sample.count):
        return f"To decide: probe at least 5 {sample.unit}s ({_more(sample, 8)})."
    straddling = [test for test in tests.values() if test.passed is None and not np.isnan(test.low)]
    is_unmeasured = any(test.passed is None and np.isnan(test.low) for test in tests.values())
    more = f"{_more(sample, 4 * sample.clips)}; 4 times as many halve the intervals, roughly"
    steps = [f"probe more {sample.unit}s ({more})"] * bool(straddling)
    if is_unmeasured and tests["uses_past"] not in straddling:
        steps.append("measure what is missing (a run without --quick, --layers and --experiments)")
    return f"To decide: {', and '.join(steps)}."


def _describe_cut(cut: Cut, layers: int) -> str:
    head = f"the first {len(cut.head) if len(cut.head) > 1 else 'one'} and " if cut.head else ""
    tail = f"the last {len(cut.tail) if len(cut.tail) > 1 else 'one'}"
    return (
        f"An encoder of {cut.encoder_layers} of {layers} layers, run once per frame, contains every layer "
        f"that needs the past; {head}{tail} run at every step."
    )


def _remarks(data: Mapping[str, xr.Dataset], found: Curves, cut: Cut | None) -> list[str]:
    if cut is None:
        return []
    once = found.depth(THRESHOLD)
    remarks = _coarse(found, cut)
    if once is not None and once[0] > found.layers:
        remarks.append(
            f"Fetched once, the past keeps {percent(THRESHOLD)} of its benefit at no depth, so the encoder "
            "ends where the past stops being needed when it is fetched at every step."
        )
    if found.work is not None:
        layers, work = found.work[0], summary(found.work[1]["own_work"])
        inside = [
            int(layer)
            for layer, mean in zip(layers, work.mean, strict=True)
            if mean > 1 - THRESHOLD and layer not in cut.decoder
        ]
        if inside:
            remarks.append(
                f"In the encoder, {_list_layers(inside)} would no longer see the noisy frame, although it "
                "works on it at every step: a fine-tune has to compensate for that."
            )
        missing = found.layers - len(layers)
        if missing:
            remarks.append(
                f"{missing} of {found.layers} layers were not measured, so the split is that coarse."
            )
        spare = dispensable(found, cut)
        if spare:
            remarks.append(
                f"After the encoder, {_list_layers(spare)} can be left out (alone) with {percent(THRESHOLD)} "
                "of the past's benefit kept: a decoder with fewer layers is worth a try."
            )
    return remarks + _supporting(data, cut)


def _coarse(found: Curves, cut: Cut) -> list[str]:
    """How many layers fewer the encoder could have where fetching once was not measured at every depth."""
    depths = np.arange(found.layers + 1) if found.once is None else found.once[0]
    below = depths[depths < cut.encoder_layers].max(initial=0)
    unsure = cut.encoder_layers - int(below) - 1
    if len(depths) >= found.layers or not unsure:
        return []
    return [
        f"Fetching once was measured at {len(depths)} of {found.layers} depths: an encoder with up to "
        f"{unsure} layer{'s' * (unsure > 1)} fewer could be enough."
    ]


def dispensable(found: Curves, cut: Cut) -> list[int]:
    """Layers of the tail that can be left out, one at a time, with THRESHOLD kept."""
    if found.work is None:
        return []
    kept = summary(found.work[1]["left_out"]).least
    spare = found.work[0][kept >= THRESHOLD]
    return [int(layer) for layer in spare if layer in cut.tail]


def _supporting(data: Mapping[str, xr.Dataset], cut: Cut) -> list[str]:
    """Similarity over steps after the encoder, and attention mass in the tail: suggestive only."""
    remarks = []
    if "step_similarity" in data and TOKEN_COSINE in data["step_similarity"]:
        similarity = data["step_similarity"][TOKEN_COSINE].sel(layer=cut.encoder_layers - 1)
        different = similarity.step != similarity.step_b
        text = _by_network(similarity.where(different), scale_of(TOKEN_COSINE))
        remarks.append(
            f"Similarity (median cosine of tokens) of steps after the encoder's last layer: {text}."
        )
    if "frame_attention" in data and cut.tail:
        mass = data["frame_attention"].cross_mass
        tail = mass.sel(layer=[layer for layer in cut.tail if layer in mass.layer])
        text = _by_network(tail, scale_of("cross_mass"))
        remarks.append(f"Attention of the last layers to earlier frames: {text}.")
    return remarks


def _by_network(values: xr.DataArray, scale: MeasureScale) -> str:
    """Means over all but clips, of the trained network first."""
    values = values.mean([dim for dim in values.dims if dim not in ("clip", "network")])
    if "network" not in values.dims:
        return spell(mean_of(values, scale))
    named = sorted(map(str, values.network.values), key=lambda name: name != "trained")
    by_name = {name: values.sel(network=name, drop=True) for name in named}
    rows = {name: spell(mean_of(each, scale)) for name, each in by_name.items()}
    words = {"random": "random weights"}
    return "; ".join(f"{text} ({words.get(name, name)})" for name, text in rows.items())


def _list_layers(layers: list[int]) -> str:
    return " and ".join(f"layer {layer}" for layer in layers)
