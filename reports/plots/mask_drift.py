"""The change by a frame-causal mask in a network whose frames attend to each other in both directions."""

import pandas as pd
from matplotlib.figure import Figure

from framelens.analyses.averages import summary
from framelens.reports.drawing import style
from framelens.reports.drawing.effects import layer_ticks, networks
from framelens.reports.drawing.tables import spell, tidy
from framelens.reports.runs import Run

needs = ("mask_drift",)
order = 21
is_for_some = True
"""Only for models that are not causal; the page does not name it where it is absent."""
title = "Drift under a frame-causal mask"
caption = (
    "All frames of a clip are denoised in one pass. Then a mask stops every frame from seeing later ones, "
    "in one layer alone (left) or in all layers (right). The curves show how far the residual stream "
    "after the layer moves, divided by its norm, mean over noise levels. A change that is small on the "
    "left and grows on the right adds up over layers: training must remove it before the model can "
    "generate frame by frame."
)
SCOPES = {"alone": "One layer masked", "through": "All layers masked"}


@style.look
def draw(run: Run) -> tuple[Figure, pd.DataFrame]:
    """Distance by layer, of the trained network and of random weights; bands are intervals over clips."""
    stored = run.read("mask_drift")
    figure, tables = style.canvas(height=2.6), []
    panels = figure.subplots(1, 2, sharey=True)
    for axes, (scope, name) in zip(panels, SCOPES.items(), strict=True):
        for network in networks(stored):
            drift = stored.relative_l2.sel(network=network, scope=scope, drop=True).mean("sigma")
            values = summary(drift)
            style.line(axes, values.layer.values, values, network)
            tables.append(tidy(values, panel=scope, curve=network))
        axes.set_title(name, loc="left")
        layer_ticks(axes, stored.layer.values)
    panels[0].set_ylim(bottom=0)  # shared, so after both are drawn
    panels[0].set_ylabel("distance / norm")
    panels[0].legend()
    style.heading(figure, title, run, "mask_drift")
    return figure, pd.concat(tables, ignore_index=True)


def words(table: pd.DataFrame) -> str:
    """The largest change in one layer alone, and the change after the last layer, as sentences."""
    trained = table[table["curve"] == "trained"]
    alone, through = (trained[trained["panel"] == scope] for scope in SCOPES)
    most, last = alone.loc[alone["mean"].idxmax()], through.loc[through["layer"].idxmax()]
    return (
        f"Masked alone, layer {int(most['layer'])} moves most, by {spell(most)} of its norm; with all "
        f"layers masked, the residual stream after the last one moves by {spell(last)}."
    )
