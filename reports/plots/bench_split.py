"""Measured speed-up of the split, and everything that predicted it."""

import pandas as pd
from matplotlib.figure import Figure

from framelens.analyses.intervals import spell_interval
from framelens.reports.drawing import colours, style
from framelens.reports.drawing.bench import COLOURS, DENSE, heading
from framelens.reports.runs import Run

kind = "bench"
needs = ("bench_split",)
order = 0
title = "The split: predicted and measured"
caption = (
    "Frame time of the dense model divided by that of the separated model, at one setting. Black: median "
    "over rounds (each round times both arms) and its 95 % interval (with fewer than 6 rounds: the range "
    "of all rounds). Grey: 15 % around the median. Coloured: predictions, from the count of operations or "
    "from the roofline with this machine's rates, measured just before."
)
PREDICTED = {
    "operations": ("operations", "#0072B2", "o"),
    "roofline": ("roofline", "#D55E00", "D"),
    "plan": ("the plan", "#009E73", "^"),
    "plan_clock": ("the plan's clock", "#CC79A7", "v"),
}
HOLLOW = {"plan", "plan_clock"}
"""Predictions with hollow markers, which do not hide what is below them."""
CLOSE = 0.15
"""The share of the measured speed-up by which a close prediction may differ."""


@style.look
def draw(run: Run) -> tuple[Figure, pd.DataFrame]:
    """One row per separated arm."""
    stored = run.read("bench_split")
    arms = [str(arm) for arm in stored.arm.values[stored.network.values != DENSE]]
    figure, rows = style.canvas(height=1.3 + 0.4 * len(arms)), []
    axes = figure.subplots()
    for place, arm in enumerate(arms):
        own = stored.sel(arm=arm)
        measured, low, high = (float(own[f"speed_up{end}"]) for end in ("", "_low", "_high"))
        axes.barh(place, 2 * CLOSE * measured, 0.6, (1 - CLOSE) * measured, color=colours.ABSENT, zorder=0)
        axes.plot([low, high], [place, place], color=COLOURS[DENSE], linewidth=2)
        label = None if place else "measured"
        axes.plot(measured, place, "|", color=COLOURS[DENSE], markersize=14, markeredgewidth=2, label=label)
        rows.append({"arm": arm, "what": "measured", "speed_up": measured, "low": low, "high": high})
        for name, (words, colour, marker) in PREDICTED.items():
            value = float(own[f"speed_up_by_{name}"])
            rows.append({"arm": arm, "what": words, "speed_up": value, "over_measured": value / measured})
            fill, size = ("none", 9) if name in HOLLOW else ("full", 5)
            axes.plot(value, place, marker, color=colour, markersize=size, fillstyle=fill)
    table = pd.DataFrame(rows).dropna(subset=["speed_up"])
    for name, (words, colour, marker) in PREDICTED.items():
        if words in set(table["what"]):
            fill = "none" if name in HOLLOW else "full"
            label = f"by {words}"
            axes.plot(
                [], [], marker, color=colour, linestyle="none", markersize=6, fillstyle=fill, label=label
            )
    axes.axvline(1, color="0.5", linewidth=0.8)
    axes.set_yticks(range(len(arms)), [style.spell_arm(arm) for arm in arms])
    axes.set_ylim(len(arms) - 0.4, -0.6)
    axes.set_xlim(left=0)
    layers = f"{int(stored.attrs['encoder_layers'])} + {int(stored.attrs['decoder_layers'])}"
    axes.set_xlabel(
        f"speed-up of {layers} layers over dense {int(stored.attrs['dense_layers'])}; "
        f"{int(stored.attrs['steps'])} steps, {int(stored.attrs['history'])} frames of history"
    )
    figure.legend(loc="outside lower center", ncols=5)
    heading(figure, title, run, "interval")
    return figure, table


def words(table: pd.DataFrame) -> str:
    """What was measured, and each prediction with its ratio to it, as sentences."""
    sentences = []
    for arm, rows in table.groupby("arm", sort=False):
        measured = rows[rows["what"] == "measured"].iloc[0]
        predictions = ", ".join(
            f"by {row['what']} {row['speed_up']:.2f} ({row['over_measured']:.2f} of what was measured)"
            for _, row in rows[rows["what"] != "measured"].iterrows()
        )
        sentences.append(
            f"{style.spell_arm(str(arm)).capitalize()}: speed-up over dense "
            f"{spell_interval(measured['speed_up'], measured['low'], measured['high'])}; {predictions}."
        )
    return " ".join(sentences)
