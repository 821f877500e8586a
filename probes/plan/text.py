"""A plan as text: verdict, tests, the split and what it saves."""

from collections.abc import Sequence

from framelens.analyses.decision.curves import spans
from framelens.analyses.intervals import spell_interval
from framelens.analyses.sample import Sample
from framelens.records.plan import Plan, PlannedClock, PlannedSplit, PlannedSweep, Prediction

MARKS = {True: "passed", False: "FAILED", None: "open"}


def text(plan: Plan) -> str:
    """What the command prints."""
    model, run = plan.model, plan.run
    quick = ", a quick run" if run.quick else ""
    lines = [f"{model.name}: {plan.verdict.upper()}", plan.reason]
    lines += [plan.would_decide] * bool(plan.would_decide)
    sample = Sample(run.clips, run.films, run.is_one_film)
    lines += ["", f"evidence: {sample.describe()}{quick}, {run.folder}"]
    for test in plan.tests:
        lines += [f"  {MARKS[test.passed]:7} {test.question}"]
        lines += [f"          {test.measured} {test.beside}".rstrip()]
    lines += [f"  {remark}" for remark in plan.remarks]
    if plan.sweep:
        lines += ["", *_sweep(plan.sweep, model.layers)]
    if plan.split:
        lines += ["", *_split(plan.split, "frame" if model.frames_per_chunk == 1 else "chunk")]
    if plan.acting:
        lines += [f"to act on it: {plan.acting}"]
    if plan.prediction:
        lines += ["", *_prediction(plan.prediction, model.frames_per_chunk)]
    if plan.architecture is None:
        lines += ["", "no split, so no architecture: nothing for models/scd.py or training"]
    return "\n".join(lines)


def _split(split: PlannedSplit, unit: str) -> list[str]:
    provisional = " (provisional, the verdict is open)" if split.is_provisional else ""
    encoder, decoder = spans(range(split.encoder_layers)), spans(split.decoder)
    return [f"split{provisional}: encoder {encoder}, computed once a {unit}; at every step {decoder}"]


def _sweep(sweep: PlannedSweep, layers: int) -> list[str]:
    """The answers by threshold; - where none was found or measured."""
    rows: list[tuple[str, Sequence[float | None], str]] = [
        ("share of the benefit to keep", sweep.threshold, "{:.2f}")
    ]
    rows += [("encoder layers, past fetched once", sweep.encoder_layers, "{:.0f}")]
    rows += [("the same, past fetched at every step", sweep.live, "{:.0f}")]
    decoders = [None if decoder is None else len(decoder) for decoder in sweep.decoder]
    rows += [("layers at every step", decoders, "{:.0f}")]
    return [
        f"  {name:38}"
        + "".join(("-" if v is None or v > layers else cell.format(v)).rjust(7) for v in values)
        for name, values, cell in rows
    ]


def _prediction(found: Prediction, chunk: int) -> list[str]:
    unit = "frame" if chunk == 1 else "chunk"
    lines = [
        f"at {found.steps} steps, {found.history} {unit}s of history, {found.tokens} tokens "
        f"a {unit}, batch {found.batch}, fusion {found.fusion}:",
    ]
    if found.clock:
        lines += _describe_clock(found.clock, unit)
    lines += [
        f"  by operations: {found.speed_up:.2f} times fewer a {unit} (more steps: up to "
        f"{found.bound:.2f}); cache {_size(found.cache_bytes)}, dense "
        f"{_size(found.dense_cache_bytes)}; parameters "
        f"{found.parameters / 1e6:.1f} M, dense {found.dense_parameters / 1e6:.1f} M",
    ]
    if found.fetched_once:
        lines += [f"  without training (framelens.fetch_once): {found.fetched_once:.2f} times fewer a {unit}"]
    if found.nearby:
        how = "measured rates" if found.clock else "operations"
        lines += ["", f"  splits around it, speed-up by {how}:"]
        lines += ["  encoder + decoder   speed-up       cache   kept of the past (fetched once)"]
    for row in found.nearby:
        kept = row.kept
        share = "not measured"
        if kept is not None and kept.mean is not None:
            share = spell_interval(kept.mean, kept.low, kept.high)
        mark = "*" if row.chosen else " "
        layers, size = f"{row.encoder_layers:9} + {row.decoder_layers:<7}", _size(row.cache_bytes)
        speed_up = row.clock_speed_up or row.speed_up
        lines.append(f"{mark} {layers}{speed_up:9.2f}{size:>12}   {share}")
    return lines


def _describe_clock(clock: PlannedClock, unit: str) -> list[str]:
    threads = clock.threads
    where = "" if clock.device.startswith("cuda") else f", {threads} thread{'s' * (threads != 1)}"
    return [
        f"  by measured rates: {clock.speed_up:.2f} times faster on {clock.device_name} "
        f"({clock.dtype}{where}): {1000 * clock.frame_seconds:.3g} ms a {unit}, "
        f"dense {1000 * clock.dense_frame_seconds:.3g} ms",
    ]


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
