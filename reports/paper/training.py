"""Figure 5: the speed of training, dense against separated."""

import pandas as pd
from matplotlib.figure import Figure

from framelens.reports.budget import at_equal_time, costs, losses
from framelens.reports.drawing import style
from framelens.reports.drawing.seeds import draw_seeds
from framelens.reports.paper.roles import roles_of
from framelens.reports.runs import Run

number = "Figure 5"
name = "figure5"
needs = ("compare",)
title = "Validation loss against training time"
published = "the separated network trains clearly faster; no values"


@style.look
def draw(runs: list[Run]) -> tuple[Figure, pd.DataFrame]:
    """A panel per comparison; time is counted in steps of the dense network; thin lines are single seeds."""
    figure, rows = style.canvas(height=3.2), []
    panels = figure.subplots(1, len(runs), squeeze=False)[0]
    for axes, run in zip(panels, runs, strict=True):
        result = run.read("compare")
        loss, cost, equal = losses(result), costs(result).median("round"), at_equal_time(result).mean("seed")
        roles = roles_of([str(arm) for arm in result.arm.values])
        for arm, look in style.arms(roles.values()).items():
            at = [str(each) for each in result.arm.values].index(arm)
            time = result.checkpoint.values * float(cost[at])
            mean = draw_seeds(axes, time, loss[at], label=style.spell_arm(arm), **look)
            about = {"videos": videos_of(run), "arm": arm, "loss at equal time": float(equal[at])}
            rows += [about | {"time": a, "loss": b} for a, b in zip(time, mean, strict=True)]
        style.logarithmic(axes)
        axes.set(xlabel="training time\n(steps of the dense network)", ylabel="validation loss")
        axes.set_title(videos_of(run), loc="left")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    style.title(figure, f"{number}. {title}", runs[0])
    return figure, pd.DataFrame(rows)


def videos_of(run: Run) -> str:
    """The world that the networks of a comparison were trained on."""
    return str(run.manifest.settings["videos"])


def words(table: pd.DataFrame) -> str:
    """The loss of each network when the cheapest training ends."""
    parts = []
    for videos, rows in table.groupby("videos", sort=False):
        losses = rows.groupby("arm", sort=False)["loss at equal time"].first()
        values = ", ".join(f"{style.spell_arm(str(arm))} {loss:.4f}" for arm, loss in losses.items())
        parts.append(f"{videos}, at equal time: {values}")
    return "; ".join(parts)
