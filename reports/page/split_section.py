"""The split of a plan, what it saves, and how the answer depends on the threshold."""

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from framelens.analyses.decision.curves import spans

TERMS = (
    "Benefit of the past: the error that seeing earlier frames removes, against each frame seeing only "
    "itself. Kept: the part of it that remains under an intervention (1: all, 0: none, below 0: worse "
    "than without a past). Fetched once: what attention brings from earlier frames is computed at the "
    "first denoising step, from pure noise, and reused at all later ones; live: it is computed again at "
    "every step."
)
"""The meaning of the words in figures and tables."""
UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


def split_parts(plan: Mapping[str, Any]) -> list[str]:
    """The split as a row of layers and in words, what the cost model predicts of it, and how to act on it."""
    split, prediction = plan.get("split"), plan.get("prediction")
    together = int(plan["model"].get("frames_per_chunk", 1))
    unit = "frame" if together == 1 else "chunk"
    is_provisional = bool(split and split.get("is_provisional"))
    parts = [f'<h2 id="split">The split{" (provisional)" * is_provisional}</h2>']
    if split is None:
        parts.append(f"<p>{_none(plan)}</p>")
    else:
        if is_provisional:
            why = "Provisional: the verdict is open, and further measurements may move the split."
            parts.append(f"<p>{why} {escape(plan.get('would_decide', ''))}</p>")
        parts += _layers(split, int(plan["model"]["layers"]), unit)
    if plan.get("acting"):
        parts.append(f"<p>To act on it: <code>{escape(plan['acting'])}</code></p>")
    return parts + (_prediction(prediction, unit) if prediction else [])


def _none(plan: Mapping[str, Any]) -> str:
    """The reason why no split is proposed, and what would give one."""
    if plan.get("architecture"):
        return "None is proposed: the model is already separated."
    return f"None is proposed. {escape(plan.get('would_decide') or '')}".strip()


def _layers(split: Mapping[str, Any], layers: int, unit: str) -> list[str]:
    """One box per layer: it runs once per frame (or chunk, the unit), at every step, or both."""
    encoder, decoder = set(range(split["encoder_layers"])), set(split["decoder"])
    boxes = []
    for layer in range(layers):
        role = "both" if layer in encoder & decoder else "decoder" if layer in decoder else "encoder"
        words = {"both": "encoder and decoder", "decoder": "decoder", "encoder": "encoder"}[role]
        boxes.append(f'<li class="{role}" title="layer {layer}: {words}">{layer}</li>')
    text = (
        f"Encoder: {spans(encoder)}, once per {unit}. Decoder: {spans(decoder)}, at every step"
        f" ({len(decoder)} of {layers} layers)."
    )
    if split["head"]:
        text += f" The decoder starts with copies of the encoder's {spans(split['head'])}."
    if split.get("dispensable"):
        text += f" A decoder without {spans(split['dispensable'])} (one at a time) is worth a try."
    keys = "".join(
        f'<span class="key {role}"><i></i>{words}</span>'
        for role, words in (
            ("encoder", f"encoder: once per {unit}"),
            ("decoder", "decoder: every step"),
            ("both", "both"),
        )
    )
    return [
        f'<ol class="layers" aria-label="{escape(text)}">{"".join(boxes)}</ol><p class="keys">{keys}</p>',
        f"<p>{escape(text)} Threshold: {100 * split['threshold']:.0f} % of the past's benefit is kept.</p>",
    ]


def _prediction(prediction: Mapping[str, Any], unit: str) -> list[str]:
    """Speed-up, bound, cache and parameters at the plan's steps and history, and of nearby splits.

    `unit` is what the model generates at a time: a frame, or a chunk of several.
    """
    steps, history = prediction["steps"], prediction["history"]
    clock, nearby = prediction.get("clock"), prediction.get("nearby") or []
    counted = f"{prediction['speed_up']:.2f}×"
    rows = _clock_rows(clock, unit) if clock else []
    rows += [
        [f"speed-up of a {unit}, by operations", counted if clock else f"<b>{counted}</b>"],
        ["by operations, with an unlimited number of steps", f"{prediction['bound']:.2f}×"],
        ["cache of the past", _than(prediction["cache_bytes"], prediction["dense_cache_bytes"], of_bytes)],
        [
            f"operations per {unit}",
            _than(prediction["frame_flops"], prediction["dense_frame_flops"], of_many),
        ],
        ["parameters", _than(prediction["parameters"], prediction["dense_parameters"], of_many)],
    ]
    parts = [
        f"<h3>Predicted at {steps} steps and {history} {unit}s of history</h3>",
        f'<p class="quiet">From the cost model: {prediction["tokens"]} tokens per {unit}, batch '
        f"{prediction['batch']}, fusion {escape(str(prediction['fusion']))}. Before any fine-tune.</p>",
        table(["", "separated, against dense"], rows, "numbers"),
    ]
    if nearby:
        how = "measured rates" if clock else "operations"
        parts += [
            "<details><summary>Nearby splits</summary>",
            table(
                ["encoder", "decoder", "kept", f"speed-up by {how}", "cache", "parameters"],
                [_nearby(each) for each in nearby],
                "numbers",
            ),
            "</details>",
        ]
    return parts


def _clock_rows(clock: Mapping[str, Any], unit: str) -> list[list[str]]:
    """The speed-up at a machine's measured rates, and the seconds of both models."""
    where = f"{clock['device_name']}, {clock['dtype']}"
    if not str(clock["device"]).startswith("cuda"):
        where += f", {clock['threads']} thread{'s' * (clock['threads'] != 1)}"
    seconds = _than(clock["frame_seconds"], clock["dense_frame_seconds"], _seconds)
    return [
        [f"speed-up of a {unit}, by measured rates", f"<b>{clock['speed_up']:.2f}×</b>"],
        [f"seconds per {unit} ({escape(where)})", seconds],
    ]


def _nearby(each: Mapping[str, Any]) -> list[str]:
    chosen = " (chosen)" if each.get("chosen") else ""
    return [
        f"{each['encoder_layers']} layers{chosen}",
        f"{each['decoder_layers']} layers",
        _value(each.get("kept")),
        f"{each.get('clock_speed_up') or each['speed_up']:.2f}×",
        of_bytes(each["cache_bytes"]),
        of_many(each["parameters"]),
    ]


def sweep_parts(plan: Mapping[str, Any]) -> list[str]:
    """The encoder's depth at each threshold, and whether the answer depends on the threshold."""
    sweep = plan.get("sweep")
    if not sweep or not sweep.get("threshold"):
        return []
    none = int(plan["model"]["layers"]) + 1
    rows = []
    for at, threshold in enumerate(sweep["threshold"]):
        value = {"mean": sweep["encoder_layers"][at], "low": sweep["low"][at], "high": sweep["high"][at]}
        decoder = sweep["decoder"][at]
        rows.append(
            [
                f"{100 * threshold:.0f} %",
                _depth(value, none),
                _depth({"mean": sweep["live"][at]}, none),
                "–" if decoder is None else escape(spans(decoder)),
            ]
        )
    heads = ["threshold", "encoder layers, past fetched once", "the same, past live", "decoder"]
    return [
        "<h3>With other thresholds</h3>",
        f"<p>{escape(str(sweep.get('said', '')))}</p>",
        '<p class="quiet">Benefit of the past: the error that seeing earlier frames removes. Fetched once: '
        "at the first step, and reused at all later ones; live: at every step. Decoder: the layers that run "
        "at every step.</p>",
        table(heads, rows, "numbers"),
    ]


def table(heads: Iterable[str], rows: Iterable[Iterable[str]], kind: str) -> str:
    """A table that scrolls sideways where it must; cells are HTML already."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in heads)
    body = "\n".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return (
        f'<div class="scroll" tabindex="0"><table class="{kind}"><thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def _depth(value: Mapping[str, Any], none: int) -> str:
    """A depth in layers as text; one more than the model has means that no depth is enough."""
    mean, low, high = (value.get(name) for name in ("mean", "low", "high"))
    if mean is None:
        return "–"
    text = "no depth is enough" if mean >= none else f"{mean:g}"
    if low is None or high is None or low >= none:
        return text
    return f"{text} [{low:g} to {'none' if high >= none else f'{high:g}'}]"


def _value(value: Mapping[str, Any] | None) -> str:
    if not value or value.get("mean") is None:
        return "–"
    low, high = value.get("low"), value.get("high")
    return f"{value['mean']:.2f}" + ("" if low is None or high is None else f" [{low:.2f}, {high:.2f}]")


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
