"""The split of a plan, what it saves, and how the answer depends on the threshold."""

from typing import Any

from framelens.analyses.decision.curves import spans
from framelens.analyses.intervals import spell_interval
from framelens.records.plan import (
    Plan,
    PlannedClock,
    PlannedInterval,
    PlannedNeighbour,
    PlannedSplit,
    Prediction,
)
from framelens.reports.page.markup import Html, fill, join, table

TERMS = (
    "Benefit of the past: the error that seeing earlier frames removes, against each frame seeing only "
    "itself. Kept: the part of it that remains under an intervention (1: all, 0: none, below 0: worse "
    "than without a past). Fetched once: what attention brings from earlier frames is computed at the "
    "first denoising step, from pure noise, and reused at all later ones; live: it is computed again at "
    "every step."
)
"""The meaning of the words in figures and tables."""
UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


def split_parts(plan: Plan) -> list[Html]:
    """The split as a row of layers and in words, what the cost model predicts of it, and how to act on it."""
    split, prediction = plan.split, plan.prediction
    unit = plan.model.unit
    is_provisional = bool(split and split.is_provisional)
    parts = [fill('<h2 id="split">The split{}</h2>', " (provisional)" * is_provisional)]
    if split is None:
        parts.append(fill("<p>{}</p>", _none(plan)))
    else:
        if is_provisional:
            why = "Provisional: the verdict is open, and further measurements may move the split."
            parts.append(fill("<p>{} {}</p>", why, plan.would_decide))
        parts += _layers(split, plan.model.layers, unit)
    if plan.acting:
        parts.append(fill("<p>To act on it: <code>{}</code></p>", plan.acting))
    return parts + (_prediction(prediction, unit) if prediction else [])


def _none(plan: Plan) -> str:
    """The reason why no split is proposed, and what would give one."""
    if plan.architecture:
        return "None is proposed: the model is already separated."
    return f"None is proposed. {plan.would_decide}".strip()


def _layers(split: PlannedSplit, layers: int, unit: str) -> list[Html]:
    """One box per layer: it runs once per frame (or chunk, the unit), at every step, or both."""
    encoder, decoder = set(range(split.encoder_layers)), set(split.decoder)
    boxes = []
    for layer in range(layers):
        role = "both" if layer in encoder & decoder else "decoder" if layer in decoder else "encoder"
        words = {"both": "encoder and decoder", "decoder": "decoder", "encoder": "encoder"}[role]
        boxes.append(fill('<li class="{}" title="layer {}: {}">{}</li>', role, layer, words, layer))
    text = (
        f"Encoder: {spans(encoder)}, once per {unit}. Decoder: {spans(decoder)}, at every step"
        f" ({len(decoder)} of {layers} layers)."
    )
    if split.head:
        text += f" The decoder starts with copies of the encoder's {spans(split.head)}."
    if split.dispensable:
        text += f" A decoder without {spans(split.dispensable)} (one at a time) is worth a try."
    roles = {"encoder": f"encoder: once per {unit}", "decoder": "decoder: every step", "both": "both"}
    keys = join((fill('<span class="key {}"><i></i>{}</span>', *role) for role in roles.items()), "")
    row = '<ol class="layers" aria-label="{}">{}</ol><p class="keys">{}</p>'
    threshold = f"Threshold: {100 * split.threshold:.0f} % of the past's benefit is kept."
    return [fill(row, text, join(boxes, ""), keys), fill("<p>{} {}</p>", text, threshold)]


def _prediction(prediction: Prediction, unit: str) -> list[Html]:
    """Speed-up, bound, cache and parameters at the plan's steps and history, and of nearby splits.

    `unit` is what the model generates at a time: a frame, or a chunk of several.
    """
    steps, history = prediction.steps, prediction.history
    clock, nearby = prediction.clock, prediction.nearby
    counted = f"{prediction.speed_up:.2f}×"
    rows: list[list[object]] = _clock_rows(clock, unit) if clock else []
    rows += [
        [f"speed-up of a {unit}, by operations", counted if clock else fill("<b>{}</b>", counted)],
        ["by operations, with an unlimited number of steps", f"{prediction.bound:.2f}×"],
        *_fetched_once(prediction),
        ["cache of the past", _than(prediction.cache_bytes, prediction.dense_cache_bytes, of_bytes)],
        [
            f"operations per {unit}",
            _than(prediction.frame_flops, prediction.dense_frame_flops, of_many),
        ],
        ["parameters", _than(prediction.parameters, prediction.dense_parameters, of_many)],
    ]
    parts = [
        fill("<h3>Predicted at {} steps and {} {}s of history</h3>", steps, history, unit),
        fill(
            '<p class="quiet">From the cost model: {} tokens per {}, batch {}, fusion {}. Before any '
            "fine-tune.</p>",
            prediction.tokens,
            unit,
            prediction.batch,
            prediction.fusion,
        ),
        table(["", "separated, against dense"], rows, "numbers"),
    ]
    if nearby:
        how = "measured rates" if clock else "operations"
        heads = ["encoder", "decoder", "kept", f"speed-up by {how}", "cache", "parameters"]
        rows_around = table(heads, [_nearby(each) for each in nearby], "numbers")
        parts.append(fill("<details><summary>Nearby splits</summary>\n{}\n</details>", rows_around))
    return parts


def _fetched_once(prediction: Prediction) -> list[list[object]]:
    """The speed-up without training; nothing in a plan that does not state it."""
    if prediction.fetched_once is None:
        return []
    return [["without training: fetch once (framelens.fetch_once)", f"{prediction.fetched_once:.2f}×"]]


def _clock_rows(clock: PlannedClock, unit: str) -> list[list[object]]:
    """The speed-up at a machine's measured rates, and the seconds of both models."""
    where = f"{clock.device_name}, {clock.dtype}"
    if not clock.device.startswith("cuda"):
        where += f", {clock.threads} thread{'s' * (clock.threads != 1)}"
    seconds = _than(clock.frame_seconds, clock.dense_frame_seconds, _seconds)
    return [
        [f"speed-up of a {unit}, by measured rates", fill("<b>{}</b>", f"{clock.speed_up:.2f}×")],
        [f"seconds per {unit} ({where})", seconds],
    ]


def _nearby(each: PlannedNeighbour) -> list[str]:
    chosen = " (chosen)" if each.chosen else ""
    return [
        f"{each.encoder_layers} layers{chosen}",
        f"{each.decoder_layers} layers",
        _value(each.kept),
        f"{each.clock_speed_up or each.speed_up:.2f}×",
        of_bytes(each.cache_bytes),
        of_many(each.parameters),
    ]


def sweep_parts(plan: Plan) -> list[Html]:
    """The encoder's depth at each threshold, and whether the answer depends on the threshold."""
    sweep = plan.sweep
    if sweep is None or not sweep.threshold:
        return []
    none = plan.model.layers + 1
    rows = []
    for at, threshold in enumerate(sweep.threshold):
        once = PlannedInterval(sweep.encoder_layers[at], sweep.low[at], sweep.high[at])
        decoder = sweep.decoder[at]
        rows.append(
            [
                f"{100 * threshold:.0f} %",
                _depth(once, none),
                _depth(PlannedInterval(sweep.live[at], None, None), none),
                "–" if decoder is None else spans(decoder),
            ]
        )
    heads = ["threshold", "encoder layers, past fetched once", "the same, past live", "decoder"]
    return [
        fill("<h3>With other thresholds</h3>\n<p>{}</p>", sweep.said),
        fill(
            "<details><summary>the split at each threshold</summary>\n"
            '<p class="quiet">Benefit of the past: the error that seeing earlier frames removes. Fetched '
            "once: at the first step, and reused at all later ones; live: at every step. Decoder: the layers "
            "that run at every step.</p>\n{}\n</details>",
            table(heads, rows, "numbers"),
        ),
    ]


def _depth(value: PlannedInterval, none: int) -> str:
    """A depth in layers as text; one more than the model has means that no depth is enough."""
    mean, low, high = value.mean, value.low, value.high
    if mean is None:
        return "–"
    text = "no depth is enough" if mean >= none else f"{mean:g}"
    if low is None or high is None or low >= none:
        return text
    if low == mean == high:
        return f"{text} ± 0"
    return f"{text} [{low:g} to {'none' if high >= none else f'{high:g}'}]"


def _value(value: PlannedInterval | None) -> str:
    if value is None or value.mean is None:
        return "–"
    return spell_interval(value.mean, value.low, value.high)


def _than(value: int | float, dense: int | float, spell: Any) -> str:
    return f"{spell(value)} against {spell(dense)}"


def of_bytes(count: int | float) -> str:
    """`1.5 MiB`."""
    for unit in UNITS:
        if count < 1024 or unit == UNITS[-1]:
            break
        count /= 1024
    return f"{count:.3g} {unit}" if count < 1000 else f"{count:.0f} {unit}"


def of_many(count: int | float) -> str:
    """`3.66 million`."""
    for size, name in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million"), (1e3, "thousand")):
        if count >= size:
            return f"{count / size:.3g} {name}"
    return f"{count:.3g}"


def _seconds(value: int | float) -> str:
    return f"{value:.3g} s" if value >= 1 else f"{1e3 * value:.3g} ms"
