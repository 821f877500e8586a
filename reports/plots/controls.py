"""Whether the instruments work: edits that must change the frame, and edits that must not."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from framelens.analyses.averages import summary
from framelens.analyses.decision.outcomes import control_outcomes, control_threshold
from framelens.reports.drawing import style
from framelens.reports.runs import Run

needs = ("controls",)
order = 11
title = "Controls"
caption = (
    "How much each control changes the generated frame (root mean square of the change divided by that of "
    "the frame). Identity edits write every value back unchanged and must not change a single bit. The "
    "other controls must change the frame by more than the threshold: attention confined to the own frame "
    "in every layer, the cross-frame part of another clip's attention, another clip's features. If a "
    "control fails, the results of these interventions do not count."
)
FAILED, PASSED, OPEN = "#C1121F", "#0072B2", "#7A7A7A"
LINEAR_BELOW = 1e-3


def outcomes(run: Run) -> pd.DataFrame:
    """One row per control: mean, low, high of its effect, must_fire, and passed (None: does not apply).

    The rule is `framelens.analyses.decision.outcomes`'.
    """
    stored = run.read("controls")
    effect, threshold = summary(stored.effect), control_threshold(stored)
    rows = []
    for name, passed in control_outcomes(stored).items():
        value, must = effect.sel(control=name), bool(stored.must_fire.sel(control=name).max() == 1)
        numbers = {key: float(value[key]) for key in ("mean", "low", "high")}
        outcome = {"must_fire": must, "passed": passed, "threshold": threshold}
        rows.append({"control": name, **numbers, **outcome})
    return pd.DataFrame(rows).astype({"passed": object})


def failed_controls(run: Run) -> list[str]:
    """The controls that failed; none where they were not measured."""
    if run.missing(needs):
        return []
    table = outcomes(run)
    return [row.control for row in table.itertuples() if row.passed is False]


@style.look
def draw(run: Run) -> tuple[Figure, pd.DataFrame]:
    """Effects with intervals, one row per control; the failed ones are red and crossed."""
    table = outcomes(run)
    figure = style.canvas(height=2.5)
    axes = figure.subplots()
    highest = max(1.0, float(np.nanmax(table[["mean", "high"]].to_numpy(float))))
    for row in table.itertuples():
        colour = {True: PASSED, False: FAILED, None: OPEN}[row.passed]
        height = len(table) - 1 - row.Index
        if np.isfinite(row.mean):
            axes.plot(row.mean, height, "X" if row.passed is False else "o", color=colour, markersize=6)
        if np.isfinite(row.low):
            axes.plot([row.low, row.high], [height, height], color=colour, linewidth=2)
        must = "must change it" if row.must_fire else "must not change it"
        outcome = {True: "passed", False: "FAILED", None: "does not apply"}[row.passed]
        axes.text(1.02, height, f"{must}: {outcome}", transform=axes.get_yaxis_transform(), color=colour,
                  va="center", fontsize=7, weight="bold" if row.passed is False else "normal")  # fmt: skip
    threshold = float(table["threshold"].iloc[0])
    axes.axvline(threshold, color="black", linestyle=":", linewidth=1)
    axes.text(threshold, len(table) - 0.4, f" must exceed {threshold:g}", fontsize=6, va="bottom")
    axes.set_yticks(range(len(table)), [name.replace("_", " ") for name in table["control"][::-1]])
    axes.set_xscale("symlog", linthresh=LINEAR_BELOW)
    axes.set_xlim(-LINEAR_BELOW / 3, 1.5 * highest)
    axes.set_ylim(-0.6, len(table) - 0.1)
    axes.set_xlabel("change of the generated frame (relative root mean square; linear below 0.001)")
    style.heading(figure, title, run, "controls")
    return figure, table


def words(table: pd.DataFrame) -> str:
    """The controls that failed, or that all passed, with the smallest and largest effects, as sentences."""
    names = [row.control.replace("_", " ") for row in table.itertuples() if str(row.passed) == "False"]
    fired, still = (table[table["must_fire"].astype(bool) == must]["mean"] for must in (True, False))
    effects = f"Controls that must fire change the frame by {fired.min():.2g} or more, identity edits by "
    outcome = f"Failed: {', '.join(names)}. " if names else "All controls that apply passed. "
    return f"{outcome}{effects}{still.max():.2g}."
