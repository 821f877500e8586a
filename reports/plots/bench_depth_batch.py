"""Speed-up over dense against the depth of the decoder and against the batch."""

import pandas as pd
from matplotlib.figure import Figure

from framelens.reports.drawing import style
from framelens.reports.drawing.bench import (
    COLOURS,
    DENSE,
    arms,
    curve,
    heading,
    integers,
    table,
    timings,
    varied_of,
)
from framelens.reports.runs import Run

kind = "bench"
needs = ("bench_decoder_layers", "bench_batch")
order = 3
title = "Speed-up against decoder depth and batch"
caption = (
    "The total depth of encoder and decoder is fixed: a layer that moves from the encoder to the decoder "
    "runs at every step instead of once per frame. Solid: measured. Dashed: predicted from the count of "
    "operations. Dotted: predicted by the roofline of this machine."
)
LABELS = {"decoder_layers": "layers of the decoder", "batch": "clips in a batch"}


@style.look
def draw(run: Run) -> tuple[Figure, pd.DataFrame]:
    """Two panels; bands span the rounds."""
    figure, tables = style.canvas(height=3.1), []
    for axes, dataset in zip(figure.subplots(1, 2), needs, strict=True):
        varied, times = varied_of(dataset), timings(run, dataset)
        for label, own, look in arms(times, with_dense=False):
            curve(axes, own, "speed_up", label, look)
            for prediction, dashes in (("flops", "--"), ("roofline", (0, (1, 1)))):
                axes.plot(
                    own[varied],
                    own[f"speed_up_{prediction}"],
                    color=look["color"],
                    linestyle=dashes,
                    linewidth=0.9,
                )
        axes.axhline(1, color=COLOURS[DENSE], linewidth=0.8)
        integers(axes, times[varied].values)
        axes.set_xlabel(LABELS[varied])
        axes.set_ylabel("speed-up over dense")
        axes.set_ylim(bottom=0)
        tables.append(table(times.rename({varied: "value"}), varied=varied))
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    heading(figure, title, run)
    return figure, pd.concat(tables, ignore_index=True)


def words(table: pd.DataFrame) -> str:
    """The speed-up at both ends of each sweep, as sentences."""
    sentences = []
    for (varied, arm), rows in table[table["arm"] != DENSE].groupby(["varied", "arm"], sort=False):
        first, last = rows.loc[rows["value"].idxmin()], rows.loc[rows["value"].idxmax()]
        sentences.append(
            f"{style.spell_arm(str(arm)).capitalize()}: {first['speed_up_median']:.2f} at {first['value']} "
            f"{LABELS[str(varied)]}, {last['speed_up_median']:.2f} at {last['value']}."
        )
    return " ".join(sentences)
