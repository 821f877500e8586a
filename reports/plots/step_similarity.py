"""Similarity of a frame's features at any two denoising steps, one small matrix per layer."""

import pandas as pd
from matplotlib.figure import Figure

from framelens.analyses.decision.repeated_features import TOKEN_COSINE
from framelens.analyses.depth import depth_of
from framelens.analyses.sample import per_film
from framelens.reports.drawing import colours, style
from framelens.reports.drawing.tables import tidy
from framelens.reports.runs import Run

needs = ("step_similarity",)
order = 2
title = "Similarity between denoising steps"
caption = (
    "Cosine similarity of one frame's features at two denoising steps. Rows are the reference step, "
    "columns are the other step; step 0 is the noisiest. Raw: of the whole feature map. Token: of each token "
    "without the median token of the reference step, median over tokens. The same network with random "
    "weights is the null: similarity that it reaches too was not learned."
)
PANELS = 6
MEASURES = {"cosine": "raw cosine", TOKEN_COSINE: "token cosine"}


@style.look
def draw(run: Run) -> tuple[Figure, pd.DataFrame]:
    """Matrices for the embedding, first, middle and last layers, averaged over clips and frames."""
    run.require("step_similarity", TOKEN_COSINE)
    networks = run.networks("step_similarity")[:2]
    means = {}
    for network in networks:
        stored = run.read("step_similarity", *MEASURES, network=network)
        chosen = depth_of(stored).pick(PANELS)
        means[network] = stored.isel(layer=chosen).map(per_film).mean(("clip", "frame"))
    depth = depth_of(means["trained"])
    rows = [(measure, network) for measure in MEASURES for network in networks]
    lowest = min(float(mean[measure].min()) for mean in means.values() for measure in MEASURES)

    figure = style.canvas(height=0.8 + 1.03 * len(rows))
    grid = figure.subplots(len(rows), len(depth.layers), squeeze=False, sharex=True, sharey=True)
    tables = []
    for line, (measure, network) in zip(grid, rows, strict=True):
        matrices = means[network][measure]
        for place, axes in enumerate(line):
            matrix = matrices.isel(layer=place).transpose("step", "step_b")
            image = axes.imshow(matrix, vmin=lowest, vmax=1, cmap=colours.SEQUENTIAL, origin="upper")
            axes.set_xticks([0, matrix.sizes["step"] - 1], [0, int(matrix.step[-1])])
            axes.set_yticks([0, matrix.sizes["step"] - 1], [0, int(matrix.step[-1])])
        line[0].set_ylabel(f"{style.WORDS.get(network, network)}\n{MEASURES[measure]}\nstep")
        tables.append(tidy(matrices.rename("mean").to_dataset(), measure=measure, network=network))
    for place, axes in enumerate(grid[0]):
        axes.set_title(depth.short(place))
    for axes in grid[-1]:
        axes.set_xlabel("step")
    figure.colorbar(image, ax=grid, label="similarity (cosine)", shrink=0.6, aspect=30)
    style.heading(figure, title, run, "step_similarity", interval=False)
    return figure, pd.concat(tables, ignore_index=True)


def words(table: pd.DataFrame) -> str:
    """The lowest and highest similarity of two different steps, as sentences."""
    different = table[table["step"] != table["step_b"]]
    means = different.groupby(["measure", "network"], sort=False)["mean"].agg(["min", "max"])
    return " ".join(
        f"{MEASURES[measure].capitalize()}, {style.WORDS.get(network, network)}: "
        f"between {row['min']:.2f} and {row['max']:.2f} over the shown layers and pairs of steps."
        for (measure, network), row in means.iterrows()
    )
