"""One figure of all growths: each cost over its value at the first point, on logarithmic axes."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from framelens.benchmarks.growth.slopes import Growth
from framelens.reports.drawing import style

COLUMNS = 3


@style.look
def draw(found: Sequence[Growth], about: str) -> tuple[Figure, pd.DataFrame]:
    """A panel for each quantity that is varied; the dotted line is a cost in proportion."""
    varied = list(dict.fromkeys(each.against for each in found))
    rows = -(-len(varied) // COLUMNS)
    figure = style.canvas(height=0.5 + 2.4 * rows)
    panels = figure.subplots(rows, COLUMNS, squeeze=False).flatten()
    for axes, against in zip(panels, varied, strict=False):
        own = [each for each in found if each.against == against]
        for each, look in zip(own, style.arms([each.cost for each in own]).values(), strict=True):
            relative = [cost / each.medians[0] for cost in each.medians]
            axes.plot(each.values, relative, label=f"{each.cost}: {each.slope:.2f}", **look)
        first, values = own[0].values[0], own[0].values
        axes.plot(values, [value / first for value in values], ":", color="0.5", linewidth=0.8)
        axes.set_xscale("log")
        axes.set_xticks(list(values), [str(value) for value in values])
        axes.set_xticks([], minor=True)
        style.logarithmic(axes)
        axes.set_xlabel(against)
        axes.set_ylabel("over the first point")
        axes.legend(fontsize=6)
    for axes in panels[len(varied) :]:
        axes.set_visible(False)
    style.write_above(figure, f"How costs grow: slopes on logarithmic axes\n{about}")
    rows_of = [
        {"cost": each.cost, "against": each.against, "value": value, "median": cost, "unit": each.unit}
        for each in found
        for value, cost in zip(each.values, each.medians, strict=True)
    ]
    return figure, pd.DataFrame(rows_of)
