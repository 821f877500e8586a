"""Similarity over steps, invariance to the noise draw and read-out of the clean frame, against depth."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from framelens.analyses.averages import first_last, noisiest, off_diagonal, summary
from framelens.analyses.decision.repeated_features import TOKEN_COSINE, TOKEN_COSINE_NULL
from framelens.analyses.depth import depth_of
from framelens.analyses.scales import COSINE, PLAIN
from framelens.reports.drawing import colours, style
from framelens.reports.drawing.layers import mark, place
from framelens.reports.drawing.tables import spell, tidy
from framelens.reports.runs import Run

needs = ("step_similarity", "noise_invariance", "readout")
order = 3
title = "What each layer keeps over steps and noise draws"
caption = (
    "Top: cosine similarity of a frame's features at different denoising steps, of whole feature maps (raw) "
    "and of single tokens without the median token (median over tokens). Neighbouring steps see "
    "nearly the same input, so compare a high value with the embedding and with random weights. Bottom: "
    "two noise draws, same context. At sigma 1 the input holds nothing of the frame, so features that "
    "agree come from the context; the null pairs the contexts of two clips. Read-out: ridge regression of "
    "the clean frame from the features, scored on clips that were left out; its null has the targets "
    "shuffled over clips."
)
Curve = tuple[str, xr.DataArray, tuple[float, ...] | None]


@style.look
def draw(run: Run) -> tuple[Figure, pd.DataFrame]:
    """Six panels against depth; bands are intervals over clips."""
    run.require("step_similarity", TOKEN_COSINE)
    run.require("noise_invariance", TOKEN_COSINE, TOKEN_COSINE_NULL)
    figure = style.canvas(height=5.1)
    grid = figure.subplots(2, 3)
    tables = []
    for axes, (name, unit, curves) in zip(grid.flat, panels(run), strict=True):
        for label, values, colour in curves:
            drawn = summary(values, COSINE if "cosine" in unit else PLAIN)
            line(axes, label, drawn, colour)
            tables.append(tidy(drawn, panel=name, curve=label))
        mark(axes, depth_of(drawn), ticks=6)
        axes.set_title(name, loc="left", pad=12 if any(depth_of(drawn).groups) else None)
        axes.set_ylabel(unit)
    named = {}
    for axes in grid[:, [0, 2, 1]].flat:  # the sigmas come last
        named |= dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))
    figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=5)
    style.heading(figure, title, run, "step_similarity")
    return figure, pd.concat(tables, ignore_index=True)


def line(axes: Axes, label: str, values: xr.Dataset, colour: tuple[float, ...] | None) -> None:
    """One curve: networks and nulls in their own colour, noise levels in a shade."""
    x = np.arange(values.sizes["layer"])
    style.line(axes, x, values, label, **({"color": colour} if colour else {}))


def panels(run: Run) -> Iterator[tuple[str, str, Sequence[Curve]]]:
    """Title, unit and curves of each panel; a curve is (label, values by clip and layer, shade or None)."""
    similarity = {
        network: run.read("step_similarity", "cosine", TOKEN_COSINE, network=network).mean("frame")
        for network in run.networks("step_similarity")
    }
    raw = [(network, off_diagonal(values.cosine), None) for network, values in similarity.items()]
    yield "Raw similarity", "cosine, step pairs", raw
    tokens = {network: values[TOKEN_COSINE] for network, values in similarity.items()}
    pairs = [(network, off_diagonal(values), None) for network, values in tokens.items()]
    yield "Similarity of tokens", "token cosine, step pairs", pairs
    ends = [(network, first_last(values), None) for network, values in tokens.items()]
    yield "First against last step", "token cosine", ends
    invariance = {
        n: noisiest(run.read("noise_invariance", network=n)) for n in run.networks("noise_invariance")
    }
    sigma = float(invariance["trained"].sigma)
    curves = [(n, s[TOKEN_COSINE], None) for n, s in invariance.items()]
    curves.append(("other", invariance["trained"][TOKEN_COSINE_NULL], None))
    yield f"Two noise draws at sigma {sigma:.2g}", "token cosine", curves
    trained = run.read("noise_invariance", TOKEN_COSINE, network="trained")[TOKEN_COSINE].mean("frame")
    trained = trained.sortby("sigma", ascending=False)
    kept = np.unique(np.linspace(0, trained.sizes["sigma"] - 1, min(5, trained.sizes["sigma"])).astype(int))
    levels = [
        (f"sigma {float(trained.sigma[i]):.2g}", trained.isel(sigma=i, drop=True), shade)
        for i, shade in zip(kept, colours.sigma_shades(trained.sigma.values[kept]), strict=True)
    ]
    yield "Two noise draws, trained", "token cosine", levels
    readout = {n: run.read("readout", network=n) for n in run.networks("readout")}
    curves = [(n, s.r2, None) for n, s in readout.items()]
    curves.append(("shuffled", readout["trained"].r2_shuffled, None))
    yield "Clean frame read out", "R² (1 = perfect)", curves


def words(table: pd.DataFrame) -> str:
    """For each panel the trained network's highest and lowest layer, as sentences."""
    sentences = []
    for name, rows in table[table["curve"] == "trained"].dropna(subset=["mean"]).groupby("panel", sort=False):
        low, high = rows.loc[rows["mean"].idxmin()], rows.loc[rows["mean"].idxmax()]
        sentences.append(f"{name}: lowest at {place(low)} ({spell(low)}), highest at {place(high)} "
                         f"({spell(high)}).")  # fmt: skip
    return " ".join(sentences)
